"""How fast does a search find the front? Our samplers against Optuna's, Syne Tune's and Ax's.

    python -m benchmarks.search_quality --seeds 10

Five test problems and the analytic sparse-backprop response, four simulated workers that end in any order.
Scored is the hypervolume of what the proposed points are really worth: noise is told to the searches and not
scored. Syne Tune and Ax take part where they are installed (`pip install sbp-tune[peers]`); the searches with a
Gaussian process take minutes a seed, hence --slow-seeds. An interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import time
from pathlib import Path

from benchmarks.frontier.jobs import in_processes
from benchmarks.search_quality.peers import PEERS
from benchmarks.search_quality.problems import problems
from benchmarks.search_quality.simulator import Runs, recorded, run
from benchmarks.search_quality.table import table, text
from sbp_tune.files import write_atomic

SLOW = ("our default", "our nehvi", "Optuna GP", "Ax")
AT = (25, 50, 100)


def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))  # of the processes it starts
    missing = [name for name in options.peers if PEERS[name].version is None]
    for name in missing:
        print(f"left out: {name}: {PEERS[name].package} is not installed", file=sys.stderr)
    peers = [name for name in options.peers if name not in missing]
    log = options.work / "runs.jsonl"
    runs = recorded(log, options.workers) if options.recorded else _run_all(log, peers, options)
    chosen = itertools.product(options.problems, peers)
    runs = {key: runs[key] for pair in chosen for key in sorted(runs) if key[:2] == pair}
    found = table(runs, [count for count in AT if count <= options.evaluations])
    print(text(found))
    versions = {PEERS[name].package: PEERS[name].version for name in peers}
    found["versions"] = ", ".join(f"{package} {version}" for package, version in versions.items())
    write_atomic(options.output, lambda path: found.round(6).to_csv(path, index=False))
    print(f"table: {options.output}")


def _run_all(log: Path, peers: list[str], options: argparse.Namespace) -> Runs:
    tasks = [
        (log, problem, peer, options.evaluations, options.workers, seed)
        for seed in range(options.first_seed, options.first_seed + options.seeds)
        for problem in options.problems
        for peer in peers
        if peer not in SLOW or options.slow_seeds is None or seed < options.first_seed + options.slow_seeds
    ]
    runs: Runs = {}
    start = time.monotonic()
    ended = in_processes(run, tasks, options.processes)
    if options.processes == 1:
        ended = ((place, run(*task)) for place, task in enumerate(tasks))
    for count, (place, done) in enumerate(ended, 1):
        _, problem, peer, _, _, seed = tasks[place]
        runs[problem, peer, seed] = done
        minutes = (time.monotonic() - start) / 60
        print(f"ran {count}/{len(tasks)}, {minutes:.1f} min: {problem}, {peer}, seed {seed}", file=sys.stderr)
    return runs


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.search_quality",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seeds", type=int, default=10, help="of each search")
    parser.add_argument("--slow-seeds", type=int, help=f"of {', '.join(SLOW)} [as --seeds]")
    parser.add_argument("--first-seed", type=int, default=0, help="others for choosing settings than for reporting")
    parser.add_argument("--evaluations", type=int, default=100, help="of each search")
    parser.add_argument("--problems", nargs="+", choices=list(problems()), default=list(problems()), metavar="NAME")
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), default=list(PEERS), metavar="NAME")
    parser.add_argument("--workers", type=int, default=4, help="simulated ones")
    parser.add_argument("--processes", type=int, default=2, help="searches at a time")
    parser.add_argument("--recorded", action="store_true", help="run nothing, show all seeds that the log has")
    parser.add_argument("--work", type=Path, default=Path("results/search_quality"), help="folder of the log of runs")
    parser.add_argument("-o", "--output", type=Path, default=Path("results/search_quality/table.csv"), help="CSV file")
    return parser


if __name__ == "__main__":
    main()
