"""CPU time of a command and of all processes that it starts, by what they do: sampled while it runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import pandas as pd
import psutil

from trainables.sparse_backprop import SparseBackprop

_SAMPLE_S = 0.5
PARTS = ("training", "meter", "driver", "ray")
"""Whose CPU time: of the process that trains, of the energy meter, of `sbp-tune` itself, of Ray's own processes."""


class Span(NamedTuple):
    """A stretch of a run, in Unix time."""

    start: float
    end: float

    @property
    def seconds(self) -> float:
        return self.end - self.start


class Cpu:
    """CPU seconds of a process and all that it starts, by part, sampled while it runs."""

    def __init__(self, root: psutil.Process) -> None:
        self._root, self._stopped = root, threading.Event()  # root: not to be waited for before sampling ends
        self._rows: list[tuple[float, int, str, float]] = []  # time, process, part, CPU seconds so far
        self._known: set[int] = set()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    @contextmanager
    def sampled(self) -> Iterator[None]:
        """Within it, samples are taken."""
        self._thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            self._thread.join()

    def within(self, span: Span) -> dict[str, float]:
        """CPU seconds of each part in a stretch of time; a worker has its name only while it has work."""
        used = dict.fromkeys(PARTS, 0.0)
        table = pd.DataFrame(self._rows, columns=["time", "pid", "part", "cpu_s"])
        for _, rows in table.groupby("pid"):
            part = next((one for one in ("training", "meter") if one in set(rows["part"])), rows["part"].iloc[-1])
            used[part] += _at(rows, span.end) - _at(rows, span.start)
        return used

    def _sample(self) -> None:
        while not self._stopped.wait(_SAMPLE_S):
            try:
                processes = [self._root, *self._root.children(recursive=True)]
            except psutil.NoSuchProcess:
                return
            for process in processes:
                try:
                    used, line = process.cpu_times(), " ".join(process.cmdline())
                    if process.pid not in self._known:
                        self._known.add(process.pid)
                        self._rows.append((process.create_time(), process.pid, "", 0.0))
                except (psutil.NoSuchProcess, psutil.ZombieProcess):
                    continue
                self._rows.append((time.time(), process.pid, self._part(process, line), used.user + used.system))

    def _part(self, process: psutil.Process, line: str) -> str:
        if process.pid == self._root.pid:
            return "training" if " train " in line else "driver"
        if line.startswith("ray::_Meter"):
            return "meter"
        return "training" if line.startswith(f"ray::{SparseBackprop.__name__}") else "ray"


def _at(rows: pd.DataFrame, moment: float) -> float:
    """CPU seconds of a process by a moment, between samples in proportion."""
    return float(np.interp(moment, rows["time"], rows["cpu_s"]))
