"""A Ray of several nodes on one machine: `ray start` for each, with an address, GPUs and an environment of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest

MARK = "SBP_TUNE_TEST_MACHINES"
NODE = "SBP_TUNE_TEST_NODE"
PATIENCE = 400  # seconds; only what hangs needs them
# What Ray gives its own parts, in ms, before it takes a busy machine for a dead one.
_PATIENT = ("RAY_agent_register_timeout_ms", "RAY_health_check_timeout_ms", "RAY_worker_register_timeout_seconds")
_RAY = "import sys; from ray.scripts.scripts import main; sys.argv[0] = 'ray'; main()"


class Machines:
    """Nodes 2, 3, ... at 127.0.0.2, ...; the first is the head. All their processes carry a mark, to be found by."""

    def __init__(self, **environment: str) -> None:
        self._folder = TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True)  # sockets need a short path
        self._mark, self._count = uuid.uuid4().hex, 1
        with socket.socket() as free:
            free.bind(("127.0.0.2", 0))
            self.address = f"127.0.0.2:{free.getsockname()[1]}"
        self.environment = os.environ | {
            MARK: self._mark,
            "RAY_TMPDIR": self._folder.name,
            "RAY_AUTH_MODE": "disabled",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_niceness": "0",  # theirs is 15: beside other work such a worker hardly starts
            **dict.fromkeys(_PATIENT, str(1000 * PATIENCE)),
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), str(Path(__file__).parent)]),
            "SBP_TUNE_COUNTERS": "fake_gpus:counters",
            **environment,
        }

    def __enter__(self) -> Machines:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._folder.cleanup()

    def start(self, cpus: int = 1, gpus: int = 1, **environment: str) -> int:
        """Starts a node; its number. The first, the head, holds no trial."""
        self._count += 1
        number = self._count
        here = f"127.0.0.{number}"
        if number == 2:
            cpus = gpus = 0
            place = ["--head", f"--port={self.address.partition(':')[2]}", "--include-dashboard=false"]
        else:
            place = [f"--address={self.address}"]
        has = [f"--num-cpus={cpus}", f"--num-gpus={gpus}", "--object-store-memory=100000000"]
        command = [sys.executable, "-c", _RAY, "start", *place, f"--node-ip-address={here}", *has, "--block"]
        for _ in range(5):  # Ray gives itself 30 s to start, whatever else the machine does
            with (Path(self._folder.name) / f"{number}.log").open("w") as log:
                process = subprocess.Popen(
                    command,
                    env=self.environment | environment | {NODE: str(number)},
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            while process.poll() is None:
                if "Ray runtime started" in Path(log.name).read_text():
                    return number
                time.sleep(0.1)
            self.kill(number)
        raise AssertionError(Path(log.name).read_text())

    def sbp_tune(self, *arguments: object) -> Command:
        """A command of sbp-tune on this Ray, as a process."""
        return Command(self.environment, [*map(str, arguments), "--address", self.address], Path(self._folder.name))

    def processes(self, node: int | None = None, title: str = "") -> list[psutil.Process]:
        """Those of a node, or of all and of the drivers; by a part of their command line."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                marks = process.environ()
                is_ours = marks.get(MARK) == self._mark and marks.get(NODE) == (str(node) if node else marks.get(NODE))
                if is_ours and process.status() != psutil.STATUS_ZOMBIE and title in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def kill(self, node: int | None = None) -> None:
        """kill -9 of all processes of a node at once, or of all nodes."""
        while left := self.processes(node):
            for process in left:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(left, timeout=5)


class Command:
    """A running command line; `ended` waits for it."""

    def __init__(self, environment: dict[str, str], arguments: list[str], folder: Path) -> None:
        self._log = (folder / f"driver-{uuid.uuid4().hex}").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "sbp_tune.cli", *arguments],
            env=environment,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def ended(self) -> int:
        """The exit code."""
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            pytest.fail(f"still running after {PATIENCE} s:\n{self.output()}")

    def output(self) -> str:
        return Path(self._log.name).read_text()
