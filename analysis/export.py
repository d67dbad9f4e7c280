"""From a point of a study to a file that trains it again: a config as YAML or JSON, or a Python script."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from pprint import pformat
from typing import Any

from analysis.picks import pick_trial
from analysis.provenance import header_lines, provenance
from analysis.text import one_line
from sbp_tune.config import PROVENANCE, check_config
from sbp_tune.errors import InputError
from sbp_tune.files import write_text_atomic, yaml_text
from sbp_tune.study.results import StudyResults

# What YAML, of which JSON is a part, takes only escaped; the rest is written as it is, since YAML knows no pairs of
# escapes for one character.
_ESCAPED = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")


def export_config(study: StudyResults, pick: str, output: Path, form: str | None = None) -> Path:
    """Writes the whole config of a picked trial, and where it is from (see `analysis.provenance`).

    form: yaml, with comments at its head; json, with a key for it, which `sbp-tune train` reads as well; python, a
    script that trains it. By default what the file's name ends in says, else yaml. An existing file is replaced, in
    one step. Returns `output`. InputError as `pick_trial`, or if the trial's config is not a TrainConfig.
    """
    form = form or _FORM_OF.get(Path(output).suffix, "yaml")
    if form not in _WRITERS:
        raise InputError(f"as: found {one_line(form)!r}; possible: {', '.join(_WRITERS)}")
    row = pick_trial(study, pick)
    config = check_config(study.config_of(int(row["trial"])), source=f"{study.path}: trial {row['trial']}")
    write_text_atomic(
        output, _WRITERS[form](config.model_dump(mode="json"), provenance(study, row, pick), Path(output))
    )
    return Path(output)


def json_text(value: Any) -> str:
    """JSON of plain data, keys in the order given, that YAML readers take too. ValueError for NaN and infinity."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n"


def _yaml(config: dict[str, Any], origin: dict[str, Any], output: Path) -> str:
    return _comments(["sbp-tune train " + one_line(output), "", *header_lines(origin)]) + yaml_text(config)


def _json(config: dict[str, Any], origin: dict[str, Any], output: Path) -> str:
    return json_text({PROVENANCE: origin, **config})


def _python(config: dict[str, Any], origin: dict[str, Any], output: Path) -> str:
    comments = _comments(["python " + one_line(output), "", *header_lines(origin)])
    values = pformat(config, width=100, sort_dicts=False)
    return _SCRIPT.format(comments=comments, config=values, folder=repr(f"results/train/{output.stem}"))


_SCRIPT = """\
{comments}
from pathlib import Path

from sbp_tune.config import check_config
from sbp_tune.train_run import train_run

CONFIG = {config}

if __name__ == "__main__":
    # Interrupted, it goes on from the last finished epoch.
    train_run(check_config(CONFIG, source=__file__), Path({folder}), resume=True)
"""

_WRITERS: dict[str, Callable[[dict[str, Any], dict[str, Any], Path], str]] = {
    "yaml": _yaml,
    "python": _python,
    "json": _json,
}
_FORM_OF = {".yaml": "yaml", ".yml": "yaml", ".json": "json", ".py": "python"}


def _comments(lines: list[str]) -> str:
    return "".join(f"# {line}".rstrip() + "\n" for line in lines)
