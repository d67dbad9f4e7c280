"""Does sparse backpropagation pay? Every estimator against dense training of the same cost.

    python -m benchmarks.frontier --data ~/cifar10-images

Three regimes: short, long, fine-tuning. Every arm, and the dense control at 25, 40, 50, 75 and 100 % of the
epochs with the learning rate decayed over those epochs, is tuned with the same number of trials on validation
images; then all run with three seeds in random order, and are tested. An arm that lies above the control in
the mean runs again beside the controls with fresh seeds, so that luck in the first ones is not a finding.
An interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.frontier.contest import Curve, Entry, entries, final, tune
from benchmarks.frontier.jobs import in_processes, run
from benchmarks.frontier.leads import lead
from benchmarks.frontier.picture import draw
from benchmarks.frontier.table import Runs, table, text
from benchmarks.machine import machine_name
from sbp_tune.files import read_yaml, write_atomic


def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    if not (options.data / "train").is_dir():
        sys.exit(f"error: --data: {options.data}: needs class folders under train/ and test/, as CIFAR-10's images")
    torch.set_num_threads(1)  # as every run has on a CPU
    contest = Contest(read_yaml(_preset(options.preset)), options)
    contest.tune_all()
    contest.run_all()
    found = table(contest.runs, contest.points, contest.fresh)
    print(text(found))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = f"frontier_{machine_name(device)}_{Path(options.preset).stem}"
    write_atomic(options.output / f"{name}.csv", lambda path: found.round(5).to_csv(path, index=False))
    figure = draw(found)
    write_atomic(options.output / f"{name}.html", lambda path: figure.write_html(path))
    if options.png:
        write_atomic(options.output / f"{name}.png", lambda path: figure.write_image(path, scale=1.5))
    print(f"table and picture: {options.output / name}.*")


class Contest:
    """The entries of all regimes, and what was found of them."""

    def __init__(self, preset: dict[str, Any], options: argparse.Namespace) -> None:
        self.options = options
        self.trials = options.trials or preset["trials"]
        self.entries: list[Entry] = []
        self.points: dict[Entry, dict[str, Any]] = {}
        self.curves: dict[str, Curve] = {}
        self.runs: Runs = {}
        self.fresh: Runs = {}
        self._log = options.work / "runs.jsonl"
        for regime in options.regimes or preset["regimes"]:
            base = self._placed(preset["regimes"][regime])
            if base["model"].get("weights") == "pretraining":
                base["model"] = {**base["model"], "weights": str(self._pretrained(preset["pretraining"]))}
            self.entries += entries(regime, base, options.arms)

    def tune_all(self) -> None:
        """The controls first: they are what an arm must beat."""
        self._tune([entry for entry in self.entries if entry.is_control])
        self._tune([entry for entry in self.entries if not entry.is_control])

    def run_all(self) -> None:
        """Every entry with every seed; then the leading arms and their controls with fresh ones."""
        seeds = self.options.seeds
        self.runs = self._run(self.entries, list(range(seeds)))
        leading = [entry for entry in self.entries if not entry.is_control and self._leads(entry)]
        regimes = {entry.regime for entry in leading}
        again = [entry for entry in self.entries if entry in leading or (entry.is_control and entry.regime in regimes)]
        fresh = list(range(seeds, seeds + self.options.fresh_seeds))
        self.fresh = self._run(again, fresh) if fresh else {}

    def _leads(self, entry: Entry) -> bool:
        controls = [self.runs[other] for other in self.entries if other.regime == entry.regime and other.is_control]
        return lead(self.runs[entry], controls, "tflop").mean > 0

    def _tune(self, chosen: list[Entry]) -> None:
        tasks = [(entry, self.trials, self.curves.get(entry.regime, []), self._log) for entry in chosen]
        curves: dict[str, Curve] = {}
        for place, (point, result) in self._report("tuned", tasks, tune):
            entry = chosen[place]
            self.points[entry] = point
            if entry.is_control:
                curves.setdefault(entry.regime, []).append((result.tflop, result.val_accuracy))
        self.curves |= {regime: sorted(curve) for regime, curve in curves.items()}

    def _run(self, chosen: list[Entry], seeds: list[int]) -> Runs:
        tasks = [(entry, self.points[entry], seed, self._log) for entry in chosen for seed in seeds]
        random.Random(0).shuffle(tasks)  # a busy hour of the machine hits all arms alike
        found: Runs = {entry: {} for entry in chosen}
        for place, result in self._report("ran", tasks, final):
            entry, _, seed, _ = tasks[place]
            found[entry][seed] = result
        return {entry: dict(sorted(results.items())) for entry, results in found.items()}

    def _report(self, done: str, tasks: list[tuple[Any, ...]], function: Any) -> Any:
        start = time.monotonic()
        for count, (place, result) in enumerate(in_processes(function, tasks, self.options.workers), 1):
            entry = tasks[place][0]
            minutes = (time.monotonic() - start) / 60
            print(f"{done} {count}/{len(tasks)}, {minutes:.1f} min: {entry.regime} {entry.name}", file=sys.stderr)
            yield place, result

    def _placed(self, base: dict[str, Any]) -> dict[str, Any]:
        """A regime's config on this machine, with these images."""
        device = {} if torch.cuda.is_available() else {"device": "cpu", "cpu_threads": 1}
        return {**base, "data": {**base["data"], "root": str(self.options.data)}, **device}

    def _pretrained(self, base: dict[str, Any]) -> Path:
        path = self.options.work / "pretrained.pt"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            result = run(self._placed(base), weights=path)
            print(f"pretrained: {100 * (result.val_accuracy or 0):.1f} % on its own classes", file=sys.stderr)
        return path


def _preset(name: str) -> Path:
    return Path(name) if name.endswith(".yaml") else Path(__file__).with_name(f"{name}.yaml")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.frontier",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=lambda text: Path(text).expanduser(), required=True, help="class folders")
    parser.add_argument("--preset", default="quick", metavar="NAME", help="quick, full, or a YAML file of their form")
    parser.add_argument("--regimes", nargs="+", metavar="NAME", help="only these of the preset")
    parser.add_argument("--arms", nargs="+", metavar="NAME", help="only these of arms.yaml")
    parser.add_argument("--trials", type=int, help="of tuning, for each arm and control [the preset's]")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each arm and control")
    parser.add_argument("--fresh-seeds", type=int, default=4, help="further runs of leading arms, 0 for none")
    parser.add_argument("--workers", type=int, default=1 if torch.cuda.is_available() else 2, help="runs at a time")
    parser.add_argument("--work", type=Path, default=Path("results/frontier"), help="folder of the log of runs")
    parser.add_argument("--png", action="store_true", help="write the picture as PNG too (needs kaleido)")
    parser.add_argument("-o", "--output", type=Path, default=Path("results/frontier"), help="folder of the table")
    return parser


if __name__ == "__main__":
    main()
