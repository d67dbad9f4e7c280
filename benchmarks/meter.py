"""What the meter of a node costs: percent of a core, and milliseconds a snapshot.

    python -m benchmarks.meter --seconds 20 --json

It meters like a node with trials: leases of processes with as many threads as one of torch has, one of its own
process for the search, a snapshot a second, a ledger on this disk.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sbp_tune.energy import node_meter
from sbp_tune.energy.counters.machine import MachineCounters
from sbp_tune.energy.node_meter import SNAPSHOT_PERIOD_S, NodeMeter
from sbp_tune.energy.nvml import system_nvml
from sbp_tune.energy.repeater import Repeater

_TRIAL = """
import sys, threading
for _ in range(int(sys.argv[1]) - 1):
    threading.Thread(target=threading.Event().wait, daemon=True).start()
held = bytearray(100_000_000)
print(flush=True)
input()
"""


def measure(seconds: float, trials: int, threads: int) -> dict[str, Any]:
    """The figures, by name; CPU seconds are those of this process, in which nothing else runs."""
    took: list[float] = []

    class Timed(Repeater):
        def __init__(self, period: float, function: Any) -> None:
            def call() -> None:
                start = time.thread_time()
                function()
                if period == SNAPSHOT_PERIOD_S:
                    took.append(time.thread_time() - start)

            super().__init__(period, call)

    node_meter.Repeater = Timed
    try:
        with tempfile.TemporaryDirectory() as folder, _processes(trials, threads) as processes:
            meter = NodeMeter("benchmark", Path(folder), MachineCounters())
            uuids = system_nvml().uuids()
            meter.open("driver", None)
            for index, process in enumerate(processes):
                gpus = {uuids[index]: 1.0} if index < len(uuids) else {}
                meter.open(str(index), str(index), pid=process.pid, gpus=gpus, cpus=1)
            start, cpu_s = time.monotonic(), time.process_time()
            time.sleep(seconds)
            elapsed, cpu_s = time.monotonic() - start, time.process_time() - cpu_s
            meter.stop()
            written = sum(path.stat().st_size for path in Path(folder).glob("*.jsonl"))
    finally:
        node_meter.Repeater = Repeater
    return {
        "percent_of_a_core": 100 * cpu_s / elapsed,
        "ms_per_snapshot": 1000 * statistics.median(took),
        "ms_per_snapshot_max": 1000 * max(took),
        "snapshots": len(took),
        "seconds": elapsed,
        "trials": trials,
        "threads": threads,
        "gpus": len(uuids),
        "ledger_bytes_per_hour": round(3600 * written / elapsed),
    }


@contextmanager
def _processes(count: int, threads: int) -> Iterator[list[subprocess.Popen[str]]]:
    command = [sys.executable, "-S", "-E", "-c", _TRIAL, str(threads)]
    started: list[subprocess.Popen[str]] = []
    try:
        for _ in range(count):
            started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        for process in started:
            assert process.stdout is not None
            process.stdout.readline()
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate()


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--threads", type=int, default=30, help="of each trial")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    if options.seconds < 2 * SNAPSHOT_PERIOD_S or options.trials < 0 or options.threads < 1:
        sys.exit("error: needs at least 2 seconds, 0 trials and 1 thread")
    row = measure(options.seconds, options.trials, options.threads)
    if options.json:
        print(json.dumps(row))
        return
    print(
        f"{row['percent_of_a_core']:.2f} % of a core, {row['ms_per_snapshot']:.1f} ms a snapshot "
        f"(longest {row['ms_per_snapshot_max']:.1f}), {row['ledger_bytes_per_hour'] / 1e6:.1f} MB an hour: "
        f"{options.trials} trials of {options.threads} threads, {row['gpus']} GPUs, {row['snapshots']} snapshots"
    )


if __name__ == "__main__":
    main()
