"""logs/trial-0007.log: what the process of a trial prints, warns and logs, and a line an epoch, for people."""

from __future__ import annotations

import io
import logging
import os
import socket
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from sbp_tune.energy.spool import spool_folder
from sbp_tune.remote import is_uri
from sbp_tune.units import readable_energy

TRIAL_LOGS = "logs"
"""Folder of a study's directory."""

_TIME = "%Y-%m-%dT%H:%M:%SZ"


def trial_log(folder: Path, number: int, kind: str) -> Path:
    """The log of a trial in a folder of logs; kind: log, which is for people, or jsonl."""
    return folder / f"trial-{number:04d}.{kind}"


class _Tee(io.TextIOBase):
    """Writes to a stream, and to a log; a log that takes nothing (a full disk) breaks nobody's print."""

    def __init__(self, stream: TextIO, log: TextIO) -> None:
        self._stream, self._log = stream, log

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            self._log.write(text)
        return self._stream.write(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._log.flush()
        self._stream.flush()

    def isatty(self) -> bool:
        return False

    def fileno(self) -> int:
        return self._stream.fileno()


class _Handler(logging.StreamHandler[TextIO]):
    """What Python's logging says; a full disk is no error of it."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Nothing: it would print to the stream that led here."""


class WorkerLog:
    """Between `open` and `close`, what this process says goes into the log of a trial too, line by line."""

    def __init__(self, lease: dict[str, Any]) -> None:
        place = lease["folder"]  # beside the ledger of this node, which for a study on object storage is begun here
        folder = (spool_folder(place) if is_uri(place) else Path(place)).parent / TRIAL_LOGS
        self._lease, self._file = lease, trial_log(folder, int(lease["trial"]), "log")
        self._log: TextIO | None = None

    def open(self) -> None:
        """Begins. Where the file cannot be made, nothing is kept: a log is no reason to lose a trial."""
        with suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            # Line by line: of a worker that is killed the last words matter most.
            self._log = self._file.open("a", buffering=1, encoding="utf-8", errors="backslashreplace")
        if self._log is None:
            return
        self._streams = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = _Tee(sys.stdout, self._log), _Tee(sys.stderr, self._log)
        self._handler = _Handler(self._log)
        formatter = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s", _TIME)
        formatter.converter = time.gmtime
        self._handler.setFormatter(formatter)
        logging.getLogger().addHandler(self._handler)
        self.say(f"attempt {self._lease['attempt']} of trial {self._lease['trial']}", f"on {socket.gethostname()}")
        self.say(f"process {os.getpid()}, working in {Path.cwd()}")

    def say(self, *words: str) -> None:
        """A line of our own, with the time (UTC)."""
        if self._log is not None:
            with suppress(OSError):
                self._log.write(f"{time.strftime(_TIME, time.gmtime())} {', '.join(words)}\n")

    def failed(self) -> None:
        """The exception that is being handled, with its traceback."""
        self.say("failed:\n" + traceback.format_exc().rstrip())

    def close(self) -> None:
        """Ends; what was there before is there again."""
        if self._log is None:
            return
        logging.getLogger().removeHandler(self._handler)
        sys.stdout, sys.stderr = self._streams
        with suppress(OSError):
            self._log.close()
        self._log = None


def logged(trainable: type) -> type:
    """The trainable, of which each trial writes its log."""

    class Logged(trainable):
        """Ray opens and closes log files with each trial, also in a process that it uses again."""

        _worker_log: WorkerLog | None = None

        def _open_logfiles(self, *files: Any) -> None:
            super()._open_logfiles(*files)
            if "lease" in self.config:
                self._worker_log = WorkerLog(self.config["lease"])
                self._worker_log.open()

        def _close_logfiles(self) -> None:
            if self._worker_log is not None:
                self._worker_log.close()
                self._worker_log = None
            super()._close_logfiles()

        def step(self) -> dict[str, Any]:
            try:
                row: dict[str, Any] = super().step()
            except BaseException:
                if self._worker_log is not None:
                    self._worker_log.failed()
                raise
            if self._worker_log is not None:
                self._worker_log.say(*_figures(row, self.config.get("epochs")))
            return row

    Logged.__name__ = trainable.__name__  # by which Ray calls its trials
    Logged.__qualname__ = trainable.__qualname__
    return Logged


def _figures(row: dict[str, Any], epochs: Any) -> list[str]:
    """An epoch in words."""
    words = [f"epoch {row.get('epoch', '?')}" + (f"/{epochs}" if epochs else "")]
    for name in ("loss", "val_loss"):
        if isinstance(row.get(name), float):
            words.append(f"{name} {row[name]:.4f}")
    if isinstance(row.get("val_accuracy"), float):
        words.append(f"val_accuracy {100 * row['val_accuracy']:.2f} %")
    if isinstance(row.get("kwh"), float):
        words.append(readable_energy(row["kwh"]))
    if isinstance(row.get("train_time_s"), float):
        words.append(f"{row['train_time_s']:.1f} s")
    return words
