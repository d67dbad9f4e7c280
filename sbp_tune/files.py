"""Reading YAML safely, and writing so that a crash leaves the old file or the new one, and of a log its whole lines."""

from __future__ import annotations

import contextlib
import io
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from sbp_tune.errors import InputError


def read_yaml(path: Path | str) -> Any:
    """Plain dicts, lists and scalars of a YAML 1.2 file; InputError names the file and the line."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text: {error}") from error
    return parse_yaml(text, source=str(path))


def parse_yaml(text: str, source: str) -> Any:
    """As `read_yaml`, from a string; `source` is named in errors."""
    try:
        return YAML(typ="safe", pure=True).load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark else source
        problem = " ".join(str(error.problem or error.context or "not YAML").split())
        raise InputError(f"{where}: not valid YAML: {problem}") from error
    except YAMLError as error:
        raise InputError(f"{source}: not valid YAML: {' '.join(str(error).split())}") from error


def yaml_text(value: Any) -> str:
    """YAML of plain data, keys in the order given."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    buffer = io.StringIO()
    yaml.dump(value, buffer)
    return buffer.getvalue()


def write_atomic(path: Path | str, write: Callable[[Path], object]) -> None:
    """Calls `write` with a temporary path beside `path`, then moves it into place in one step."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes files private; results are as any other file
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        raise


def write_text_atomic(path: Path | str, text: str) -> None:
    """`write_atomic` for text, UTF-8."""
    write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def append_json_line(path: Path, value: dict[str, Any], durable: bool) -> None:
    """Appends a line of JSON to a file, on a line of its own also where a crash cut the one before.

    durable: waits until it is on the disk; else a crash of the process loses nothing, one of the machine may.
    """
    with path.open("ab+") as file:
        if file.tell() > 0:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(json.dumps(value).encode() + b"\n")
        file.flush()
        if durable:
            os.fsync(file.fileno())
