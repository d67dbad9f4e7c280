"""Copies a working directory to where its study lies, while it is run and at the end; and from there."""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from sbp_tune.energy.spool import Spool, spool_folder
from sbp_tune.errors import SbpTuneError, StorageError
from sbp_tune.files import write_atomic
from sbp_tune.remote import Remote
from sbp_tune.study.drivers import note_end, only_driver, taken_over
from sbp_tune.study.ledger import ledger_folder
from sbp_tune.study.storage import PATIENCE_S
from sbp_tune.study.storage_url import FILES
from sbp_tune.study.worker_log import TRIAL_LOGS
from sbp_tune.study.working import CONFIRM, Mark, read_mark, remote_of, write_mark

PERIOD_S = 10.0
FINAL_S = 30.0
"""How long the last copy is tried again; one try on a network that swallows everything takes some minutes itself."""

_SHARE = 20  # of the time at most one part in so many goes into copying
_FIRST = tuple(FILES.values())  # an epoch is logged before the storage is told of it, and so it is in the copy
_sent: dict[Path, tuple[int, int]] = {}  # what this process has copied: time of change and bytes


class Mirror:
    """The files of a working directory and of its confirmation, all but Ray's, and the ledgers of all nodes.

    Those come the other way: each node's meter copies its own to the storage (see `sbp_tune.energy.spool`).
    """

    def __init__(self, path: Path, remote: Remote | None = None) -> None:
        found = remote or remote_of(path)
        assert found is not None, path
        self._path, self._remote = path, found

    def push(self) -> None:
        """Copies what has changed here since this process copied it last."""
        for path, remote in self._studies():
            files = [file for file in path.iterdir() if file.is_file() and _is_copied(file)]
            for file in sorted(files, key=lambda file: (file.name not in _FIRST, file.name)):
                _send(file, remote)
            for file in ledger_folder(path).glob("*.json"):  # the cross-check's
                _send(file, remote.child(ledger_folder(path).name))
            for file in (path / TRIAL_LOGS).glob("*.jsonl"):  # those for people stay with the machine of the trial
                _send(file, remote.child(TRIAL_LOGS))

    def pull_ledgers(self) -> None:
        """Takes over what the meters of all nodes have written, that of this machine also before it is copied."""
        for path, remote in self._studies():
            folder, where = ledger_folder(path), remote.child(ledger_folder(path).name)
            here = {file.name: file.stat().st_size for file in folder.glob("ledger-*.jsonl")}
            for file in spool_folder(where.uri).glob("ledger-*.jsonl"):
                if file.stat().st_size > here.get(file.name, 0):
                    _copy(file, folder)
                    here[file.name] = file.stat().st_size
            for name, entry in where.files().items():
                if name.startswith("ledger-") and entry.size > here.get(name, 0):
                    where.download(name, folder / name)

    def catch_up(self) -> None:
        """Everything, in both directions, as the directory that ran the study last."""
        self._copy_spools()
        self.pull_ledgers()
        self.push()
        mark = read_mark(self._path)
        if mark is not None and not mark.copied:
            note_end(self._remote, mark)
            write_mark(self._path, replace(mark, copied=True))

    def fetch(self) -> None:
        """Takes over all of the study from where it lies."""
        self._copy_spools()
        for name in ("", CONFIRM):
            path, remote = (self._path / name, self._remote.child(name)) if name else (self._path, self._remote)
            files = remote.files()
            for file in sorted(files, key=lambda file: (file not in _FIRST, file)):
                if _is_copied(path / file):
                    remote.download(file, path / file)
            folder = remote.child(ledger_folder(path).name)
            for file in folder.files():
                if file.endswith(".json"):
                    folder.download(file, ledger_folder(path) / file)
            logs = remote.child(TRIAL_LOGS)
            for file in logs.files():
                logs.download(file, path / TRIAL_LOGS / file)
        self.pull_ledgers()

    def _copy_spools(self) -> None:
        """What a meter of this machine had to leave here."""
        for remote in (self._remote, self._remote.child(CONFIRM)):
            Spool(remote.child(ledger_folder(self._path).name).uri).copy()

    def _studies(self) -> Iterator[tuple[Path, Remote]]:
        yield self._path, self._remote
        if (self._path / CONFIRM).is_dir():
            yield self._path / CONFIRM, self._remote.child(CONFIRM)


@contextmanager
def mirrored(path: Path) -> Iterator[None]:
    """Runs a study on object storage as its only driver, and keeps the copy there up to date; for others nothing.

    The storage being away stops nothing: all is copied when it can be again. SbpTuneError where that is not so by the
    end, and where another driver runs the study.
    """
    mark, remote = read_mark(path), remote_of(path)
    if mark is None or remote is None:  # a confirmation's directory is copied with its study's
        yield
        return
    with only_driver(remote, path, mark) as mark:
        mirror = Mirror(path)
        mirror.push()
        mirror.pull_ledgers()
        copying = _Copying(mirror, remote, mark)
        try:
            yield
        finally:
            problem = copying.end()
            if problem is None:
                with suppress(StorageError):
                    note_end(remote, mark)
                    write_mark(path, replace(mark, copied=True))
            elif sys.exception() is not None:  # which says more than that it could not be copied
                print(f"warning: {problem}", file=sys.stderr)
    if problem is not None:
        raise SbpTuneError(problem)


def publish(path: Path) -> None:
    """Copies tables and reports that were made of a study, if it lies on object storage and was last run here."""
    mark = read_mark(path)
    if mark is not None and mark.driver is not None and mark.copied:
        Mirror(path).push()


class _Copying:
    """A mirror at work in the background, until `end`."""

    def __init__(self, mirror: Mirror, remote: Remote, mark: Mark) -> None:
        self._mirror, self._remote, self._mark = mirror, remote, mark
        self._away: str | None = None  # why the storage is out of reach
        self._successor: str | None = None  # the host of a driver that has taken over
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mirror", daemon=True)
        self._thread.start()

    def end(self) -> str | None:
        """Copies what is left; in one line, what could not be."""
        self._ended.set()
        self._thread.join()
        give_up = time.monotonic() + FINAL_S
        while not self._copy():
            if self._successor is not None:
                return f"{self._remote}: was taken over by {self._successor}, while this driver was cut off from it"
            if time.monotonic() > give_up:
                again = f"`sbp-tune report '{self._remote}'` copies it when the storage is back"
                return f"{self._away}; not all of the study is there, but here nothing is lost, and {again}"
            time.sleep(1.0)
        return None

    def _run(self) -> None:
        took = 0.0
        while not self._ended.wait(max(PERIOD_S, _SHARE * took)):
            began = time.monotonic()
            self._copy()
            if self._successor is not None:
                os.kill(os.getpid(), signal.SIGINT)  # as Ctrl-C
                return
            took = time.monotonic() - began if self._away is None else 0.0

    def _copy(self) -> bool:
        try:
            if self._successor is None and (successor := taken_over(self._remote, self._mark)) is not None:
                self._successor = successor
            if self._successor is not None:
                return False
            self._mirror.push()
            self._mirror.pull_ledgers()
        except (StorageError, OSError, sqlite3.Error) as error:
            if self._away is None:
                print(f"warning: {error}; the search goes on, and is copied when that can be done", file=sys.stderr)
            self._away = str(error)
            return False
        if self._away is not None:
            self._away = None
            print(f"{self._remote}: all is copied again", file=sys.stderr)
        return True


def _is_copied(file: Path) -> bool:
    return not file.name.startswith(".") and not file.name.endswith(("-journal", "-wal", "-shm"))


def _send(file: Path, remote: Remote) -> None:
    with suppress(FileNotFoundError):
        stat = file.stat()
        state = (stat.st_mtime_ns, stat.st_size)
        if _sent.get(file) == state:
            return
        if file.name == FILES["sqlite"]:
            with tempfile.TemporaryDirectory(prefix="sbp-tune-") as folder:
                remote.upload(_snapshot(file, Path(folder)), file.name)
        else:
            remote.upload(file, file.name)
        _sent[file] = state


def _snapshot(database: Path, folder: Path) -> Path:
    """A database as it is at one moment, whoever writes to it."""
    copy = folder / database.name
    with (
        closing(sqlite3.connect(f"file:{quote(str(database))}?mode=ro", uri=True, timeout=PATIENCE_S)) as source,
        closing(sqlite3.connect(copy)) as target,
    ):
        source.backup(target)
    return copy


def _copy(file: Path, folder: Path) -> None:
    write_atomic(folder / file.name, lambda made: made.write_bytes(file.read_bytes()))
