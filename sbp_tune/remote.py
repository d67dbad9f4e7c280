"""A folder on object storage by its URI: what pyarrow (S3, GCS, HDFS) or an fsspec driver reaches.

Who may read and write there is told by the environment, as the storage's own tools want it; never by the URI, which
tables and logs show.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, quote

from sbp_tune.errors import InputError, StorageError
from sbp_tune.files import write_atomic

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_SECRET = re.compile(r"://[^/?]*@")
_NOISE = re.compile(r" \(Request ID: .*?\)| To create buckets, enable .*")  # says nothing to a user


class Entry(NamedTuple):
    """A file of a folder: bytes, and when it was written by the storage's own clock, in s; None where it has none."""

    size: int
    written: float | None


def is_uri(text: str) -> bool:
    """Whether a text names a folder on object storage; `file://` is a directory like any other."""
    return _URI.match(text) is not None and not text.startswith("file://")


class Remote:
    """A folder on object storage; InputError for a URI that nothing here reads. It need not exist.

    What fails is a StorageError that names the URI and says why in one line. Safe in several threads.
    """

    def __init__(self, uri: str) -> None:
        if _SECRET.search(uri):
            shown = _SECRET.sub("://...@", uri)
            raise InputError(f"{shown}: holds credentials, which logs would show; set them in the environment instead")
        where, mark, options = uri.partition("?")
        self._where, self._options = where.rstrip("/"), mark + options
        self._parent: Remote | None = None
        self._made = False

    @property
    def uri(self) -> str:
        """As it was given."""
        return self._where + self._options

    def __str__(self) -> str:
        return self.uri

    def child(self, *names: str) -> Remote:
        """A folder below this one."""
        found = self
        for name in names:
            found, parent = Remote(f"{found._where}/{name}{self._options}"), found
            found._parent = parent
        return found

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self._where.rpartition("/")[2]

    @cached_property
    def place(self) -> tuple[Any, str]:
        """pyarrow's file system, and the path on it; the folders below one share its connections."""
        if self._parent is not None:
            filesystem, path = self._parent.place
            return filesystem, f"{path}/{self.name}"
        import pyarrow as pa
        from pyarrow.fs import FileSystem

        with self._errors():
            try:
                filesystem, path = FileSystem.from_uri(self.uri)
            except pa.ArrowInvalid as error:
                if "Unrecognized filesystem type" not in str(error):
                    raise InputError(f"{self}: {_line(error)}") from error
                filesystem, path = self._by_fsspec()
        return filesystem, path.rstrip("/")

    def files(self) -> dict[str, Entry]:
        """What lies in this folder itself, by name; nothing where there is no such folder."""
        return {
            info.base_name: Entry(info.size, None if info.mtime_ns is None else info.mtime_ns / 1e9)
            for info in self._listed()
            if info.is_file
        }

    def folders(self) -> list[str]:
        """The names of the folders in this one, in order; none where there is no such folder."""
        return sorted(info.base_name for info in self._listed() if not info.is_file)

    def read(self, name: str) -> bytes | None:
        """The content of a file; None where it is not there."""
        filesystem, path = self.place
        with self._errors():
            try:
                with filesystem.open_input_stream(f"{path}/{name}") as file:
                    return bytes(file.read())
            except FileNotFoundError:
                return None

    def write(self, name: str, content: bytes) -> None:
        """Writes a file, or writes it anew: on object storage it is there as a whole or not at all."""
        filesystem, path = self.place
        with self._errors():
            self._make_folder()
            with filesystem.open_output_stream(f"{path}/{name}") as file:
                file.write(content)

    def delete(self, name: str) -> None:
        """Takes a file away; nothing happens where it is not there."""
        filesystem, path = self.place
        with self._errors(), suppress(FileNotFoundError):
            filesystem.delete_file(f"{path}/{name}")

    def upload(self, source: Path, name: str) -> None:
        """Copies a file of this machine, or all files of a folder, whatever is there of that name."""
        from pyarrow.fs import LocalFileSystem, copy_files

        filesystem, path = self.place
        with self._errors():
            self._make_folder()
            if source.is_dir():
                filesystem.create_dir(f"{path}/{name}")
            # Threads: arrow#32372, uploads of several files at once can hang.
            copy_files(str(source), f"{path}/{name}", LocalFileSystem(), filesystem, use_threads=False)

    def download(self, name: str, target: Path) -> None:
        """Copies a file to this machine, in one step."""
        from pyarrow.fs import LocalFileSystem, copy_files

        filesystem, path = self.place
        with self._errors():
            write_atomic(target, lambda file: copy_files(f"{path}/{name}", str(file), filesystem, LocalFileSystem()))

    def check_writable(self) -> None:
        """InputError where this folder cannot be written to: no bucket, no credentials, no right."""
        marker = f".sbp-tune-{os.getpid()}"
        try:
            self.write(marker, b"")
            self.delete(marker)
        except StorageError as error:
            raise InputError(f"{error}{self._hint(str(error))}") from error

    def _listed(self) -> list[Any]:
        from pyarrow.fs import FileSelector

        filesystem, path = self.place
        with self._errors():
            return list(filesystem.get_file_info(FileSelector(path, allow_not_found=True)))

    def _make_folder(self) -> None:
        """Once: object storage needs none, and each would be a request."""
        filesystem, path = self.place
        if not self._made:
            filesystem.create_dir(path)
            self._made = True

    def _by_fsspec(self) -> tuple[Any, str]:
        from pyarrow.fs import FileSystem

        scheme = self._where.partition("://")[0]
        try:
            filesystem, path = FileSystem.from_uri(f"fsspec+{self.uri}")
        except ImportError as error:  # fsspec knows it, and says which package reads it
            raise InputError(f"{self}: {_line(error)}") from error
        except ValueError as error:
            known = "a directory, s3://, gs://, hdfs://, or a scheme that an installed fsspec driver reads (abfs://)"
            raise InputError(f"{self}: nothing here reads {scheme}://; allowed: {known}") from error
        return filesystem, str(path)

    def _hint(self, problem: str) -> str:
        if self._where.startswith("s3://") and ("ACCESS_DENIED" in problem or "InvalidAccessKeyId" in problem):
            return "; credentials come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, ~/.aws, or the machine's role"
        return ""

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageError(f"{self}: {_line(error)}") from error


def state_folder(uri: str, kind: str) -> Path:
    """Where this machine keeps what it has of a folder on object storage: one folder for each kind and URI.

    Below SBP_TUNE_STATE, else sbp-tune in the user's state folder.
    """
    where, _, options = uri.partition("?")
    scheme, _, path = where.partition("://")
    endpoints = parse_qs(options).get("endpoint_override", [])
    parts = [quote(part, safe="") for part in (scheme, *endpoints, *path.split("/")) if part not in ("", ".", "..")]
    chosen = os.environ.get("SBP_TUNE_STATE")
    root = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "sbp-tune"
    return (Path(chosen).expanduser() if chosen else root) / kind / Path(*parts)


def _line(error: BaseException) -> str:
    return _NOISE.sub("", " ".join(str(error).split()))
