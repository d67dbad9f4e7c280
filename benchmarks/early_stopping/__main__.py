"""Does early stopping find a better front for the same energy? Simulated; minutes on one core.

    python -m benchmarks.early_stopping

Four workers train the same proposals without early stopping, under ASHA on accuracy and under MO-ASHA, by the
defaults of a study file, with a later first rung, with energies that tie and with trials that wait, until as much
energy is used as 10 and 20 of the longest dense control take; only fully trained trials count. The problems are the
analytic response on the space of search_spaces/resnet18_cifar10.yaml, scored without noise, and three tables of trials
recorded on a CPU (see ../data/README.md), each of which is proposed once.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.early_stopping.comparison import SCHEDULERS, compare
from benchmarks.early_stopping.problems import analytic, recorded
from sbp_tune.files import write_text_atomic
from sbp_tune.study.file import load_study_file
from search_spaces import shipped_spaces

BENCHMARKS = Path(__file__).parents[1]


def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    problems = [analytic(load_study_file(shipped_spaces()["resnet18_cifar10"])), *map(recorded, options.tables)]
    results: list[dict[str, Any]] = []
    for problem in problems:
        for sampler in problem.samplers:
            seeds = options.seeds if sampler == "random" else options.model_seeds
            if seeds > 0:
                chosen = range(options.first_seed, options.first_seed + seeds)
                names = ("none", *(name for name in options.schedulers if name != "none"))
                results += compare(problem, sampler, chosen, options.budgets, names)
    table = pd.DataFrame(results)
    with pd.option_context("display.width", 200, "display.max_columns", None, "display.max_rows", None):
        print(table.drop(columns="by_seed").to_string(index=False, float_format=lambda value: f"{value:.3g}"))
    about = {problem.name: {"references": problem.references, "best": problem.best} for problem in problems}
    write_text_atomic(options.output, json.dumps({"problems": about, "results": results}) + "\n")
    print(f"written to {options.output}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.early_stopping", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seeds", type=int, default=30, help="of random proposals")
    parser.add_argument("--first-seed", type=int, default=0, help="others for choosing settings than for reporting")
    parser.add_argument(
        "--schedulers",
        nargs="+",
        choices=list(SCHEDULERS),
        default=list(SCHEDULERS),
        metavar="NAME",
        help="beside none",
    )
    parser.add_argument("--model-seeds", type=int, default=10, help="of tpe, on the analytic response")
    parser.add_argument("--budgets", type=float, nargs="+", default=[10.0, 20.0], help="in longest dense controls")
    tables = sorted((BENCHMARKS / "data").glob("*.parquet"))
    parser.add_argument("--tables", type=Path, nargs="*", default=tables, help="of `sbp-tune record`")
    parser.add_argument("-o", "--output", type=Path, default=BENCHMARKS / "results" / "early_stopping.json")
    return parser


if __name__ == "__main__":
    main()
