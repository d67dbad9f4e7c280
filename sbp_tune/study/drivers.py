"""Who runs a study that lies on object storage: one driver at a time, on whatever machine.

Each driver has a file `drivers/000001-NAME@HOST` there, numbered in their order and written again every few seconds,
and a second one, `.ended`, when all that it did is there. A driver that has not written for a minute is taken for dead.

Object storage knows no lock. A driver asks first (a file `.asks`), then looks whether another one asks or lives, and
refuses itself if so: since a listing shows all that was written before, of two at a time at least one sees the other.
What this cannot do: hold back a driver that was cut off, or stood still, for more than a minute while another took
over. It stops itself when it sees that.
"""

from __future__ import annotations

import json
import os
import re
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from sbp_tune.energy.repeater import Repeater
from sbp_tune.errors import SbpTuneError, StorageError
from sbp_tune.remote import Remote
from sbp_tune.study.working import Mark, write_mark

STALE_S = 60.0
BEAT_S = 10.0

_FOLDER = "drivers"
_FILE = re.compile(r"((?P<number>\d{6,})-)?(?P<name>\w+)@(?P<host>[\w.-]+?)(\.asks)?(?<!\.ended)")


@dataclass(frozen=True)
class Driver:
    """One start of a study; name: of its working directory; silent_s: since when it has not written, None: unknown.

    number: 0 for one that only asks yet.
    """

    number: int
    name: str
    host: str
    silent_s: float | None
    ended: bool

    @property
    def lives(self) -> bool:
        """Whether it may be running now."""
        return not self.ended and (self.silent_s is None or self.silent_s < STALE_S)

    def __str__(self) -> str:
        return self.host if self.silent_s is None else f"{self.host}, last seen {self.silent_s:.0f} s ago"


def latest(remote: Remote) -> Driver | None:
    """The last driver that a study had, or has; None for a study that was never run."""
    return _last(_all(remote, time.time()))


@contextmanager
def only_driver(remote: Remote, path: Path, mark: Mark) -> Iterator[Mark]:
    """For as long as the block runs this working directory is the study's driver; gives its mark as such.

    SbpTuneError where another one runs it, or has run it since this directory was fetched.
    """
    name, folder = mark.driver or uuid.uuid4().hex[:12], remote.child(_FOLDER)
    said = json.dumps({"host": _host(), "pid": os.getpid(), "began": time.time()}).encode()
    asks = f"{name}@{_host()}.asks"
    folder.write(asks, said)
    try:
        drivers = _all(remote)
        if other := next((one for one in drivers if one.name != name and one.lives), None):
            raise SbpTuneError(f"{remote}: another process runs this study at present, on {other}")
        last = _last(drivers)
        if last is not None and last.name != name and last.number > mark.known:
            fetch = f"`sbp-tune resume '{remote}'` fetches that and goes on from there"
            raise SbpTuneError(f"{path}: the study was run on {last.host} since this directory was fetched; {fetch}")
        number = (0 if last is None else last.number) + 1
        file = f"{number:06d}-{name}@{_host()}"
        folder.write(file, said)
    finally:
        folder.delete(asks)
    mark = replace(mark, driver=name, known=number, copied=False, live=False)
    write_mark(path, mark)

    def beat() -> None:
        with suppress(StorageError):  # the mirror tells
            folder.write(file, said)

    beats = Repeater(BEAT_S, beat)
    try:
        yield mark
    finally:
        beats.stop()


def taken_over(remote: Remote, mark: Mark) -> str | None:
    """The host that has run the study since the driver of this mark was cut off; None while that is in charge."""
    last = latest(remote)
    return last.host if last is not None and last.number > mark.known else None


def note_end(remote: Remote, mark: Mark) -> None:
    """Lets the next driver begin at once: all that this one did is on the storage."""
    remote.child(_FOLDER).write(f"{mark.known:06d}-{mark.driver}@{_host()}.ended", b"")


def _all(remote: Remote, now: float = 0.0) -> list[Driver]:
    """now: Unix time. Without it the storage's own: that of the youngest file, for who has just written one."""
    files = remote.child(_FOLDER).files()
    now = max([now, *(entry.written for entry in files.values() if entry.written is not None)], default=now)
    found = []
    for file, entry in files.items():
        if match := _FILE.fullmatch(file):
            silent = None if entry.written is None else now - entry.written
            ended = f"{file}.ended" in files
            found.append(Driver(int(match["number"] or 0), match["name"], match["host"], silent, ended))
    return found


def _last(drivers: list[Driver]) -> Driver | None:
    return max((one for one in drivers if one.number), key=lambda one: one.number, default=None)


def _host() -> str:
    return re.sub(r"[^\w.-]", "-", socket.gethostname()) or "unknown"
