"""The working directory of a study on object storage: its directory on a machine that runs or reads it.

SQLite and appended files need a real disk, so a driver works in a directory of its own and a mirror copies it (see
`mirror.py`). A mark beside the directory says what it belongs to, and who has run the study as far as is known here.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from sbp_tune.errors import InputError, StorageError
from sbp_tune.files import write_text_atomic
from sbp_tune.remote import Remote, state_folder

CONFIRM = "confirm"
"""A confirmation's directory, a study below its study: it goes where that one goes."""


@dataclass(frozen=True)
class Mark:
    """What is known of a working directory.

    driver: its name as a driver, None for one that only reads; known: the number of the last driver of the study,
    here or elsewhere, whose results are in this directory; copied: whether all that was done here is on the storage;
    live: whether another machine ran the study when this directory was fetched.
    """

    uri: str
    driver: str | None = None
    known: int = 0
    copied: bool = True
    live: bool = False


def read_mark(path: Path) -> Mark | None:
    """Of a working directory; None for a directory that is none."""
    file = _mark_file(path)
    return Mark(**json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else None


def write_mark(path: Path, mark: Mark) -> None:
    """Makes a directory, which need not exist, the working directory of a study."""
    write_text_atomic(_mark_file(path), json.dumps(asdict(mark), indent=2) + "\n")


def remote_of(path: Path) -> Remote | None:
    """Where the study of a directory lies for other machines; None where that is the directory itself."""
    if (mark := read_mark(path)) is not None:
        return Remote(mark.uri)
    if path.name == CONFIRM and (mark := read_mark(path.parent)) is not None:
        return Remote(mark.uri).child(CONFIRM)
    return None


def shown(path: Path) -> str:
    """A study as its user names it: by URI where it lies on object storage."""
    remote = remote_of(path)
    return str(path) if remote is None else remote.uri


def new_study(results: str, name: str) -> Path:
    """The working directory for a new study of this name below a URI; InputError where nothing can be written there."""
    remote = Remote(results).child(name)
    remote.check_writable()
    if "study.yaml" in remote.files():
        raise InputError(
            f"{remote}: a study of this name exists; continue it with `sbp-tune resume '{remote}'`, "
            "or give another --name"
        )
    path = state_folder(remote.uri, "studies")
    if path.exists():
        raise InputError(
            f"{path}: is left of a search that is not at {remote}; "
            f"continue it with `sbp-tune resume {path}`, or move it away"
        )
    write_mark(path, Mark(remote.uri))
    return path


def fetched(uri: str) -> Path:
    """The working directory of a study, up to date with its URI; InputError where there is no study, or no access.

    Where this directory has run the study last, it is the original, and what is missing at the URI is copied there.
    Where another machine has run it since, that one's files come in the place of these, which are kept beside them if
    they had never all been copied.
    """
    from sbp_tune.study.drivers import latest
    from sbp_tune.study.lock import is_locked
    from sbp_tune.study.mirror import Mirror

    remote, path = Remote(uri), state_folder(uri, "studies")
    mark = read_mark(path) or Mark(uri)
    try:
        last = latest(remote)
        if path.is_dir() and (is_locked(path) or _is_original(mark, None if last is None else last.name)):
            if not is_locked(path):
                Mirror(path).catch_up()
            return path
        if "study.yaml" not in remote.files():
            raise InputError(f"{uri}: not a study: it has no study.yaml")
        number = 0 if last is None else last.number
        if path.is_dir() and not mark.copied:
            path.rename(path.with_name(f"{path.name}.before-{number}"))
        Mirror(path, remote).fetch()
        write_mark(path, replace(mark, known=number, copied=True, live=last is not None and last.lives))
    except StorageError as error:
        here = f"; what this machine has of it is in {path}" if path.is_dir() else ""
        raise InputError(f"{error}{here}") from error
    return path


def _is_original(mark: Mark, last: str | None) -> bool:
    """Whether nobody but this directory has run the study since it did."""
    return mark.driver is not None and last in (None, mark.driver)


def _mark_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.remote.json")
