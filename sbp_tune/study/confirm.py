"""Confirms points of a finished search: runs them again with fresh seeds beside the dense controls, and tests them.

A confirmation is a study of its own in `confirm/` of the search's directory, with a fixed list of runs in place of a
sampler: it is metered, interrupted and resumed as any study. Its energy is in a ledger of its own, so that neither
the search's trials nor its budget change.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

from sbp_tune.errors import InputError
from sbp_tune.fingerprint import fingerprint
from sbp_tune.study.file import Study
from sbp_tune.study.launch import ended_trials, go_on, search, stored_study
from sbp_tune.study.lock import only_writer
from sbp_tune.study.results import StudyResults, confirmation_path, load_study
from sbp_tune.study.running import Ending


def confirm(
    path: Path, trials: Sequence[int], seeds: int, address: str | None = None, cross_checked: bool = False
) -> Ending:
    """Runs trials of a study again, each with the same `seeds` fresh seeds; what has run in an earlier call stays.

    trials: complete ones, the dense controls among them. Points and seeds of an earlier call are kept, and what is
    left of its runs runs too. Nothing runs where all has ended. InputError as `search` and `resume`.
    """
    stored_study(path)
    with only_writer(path):
        results, own = load_study(path), confirmation_path(path)
        if results.study.get("confirm"):
            raise InputError(f"{path}: is itself a confirmation; name the study above it")
        if not own.exists():
            study = planned(results, trials, seeds)
            return search(study, own, address, cross_checked)
        with only_writer(own):
            study = planned(results, trials, seeds, stored_study(own).document)
            if ended_trials(study, own) >= study.total_trials:
                return Ending.FINISHED
            return go_on(study, own, address, cross_checked)


def planned(results: StudyResults, trials: Sequence[int], seeds: int, before: dict[str, Any] | None = None) -> Study:
    """The confirmation of a study's trials; before: the document of the one there is, to which it only adds."""
    search_file = Study(results.study, str(results.path / "study.yaml"))
    had: dict[str, Any] = before["confirm"] if before is not None else {"points": {}, "runs": []}
    points, runs = copy.deepcopy(had["points"]), list(had["runs"])
    chosen = [_point(points, number, results.config_of(number)) for number in dict.fromkeys(trials)]
    begun = list(dict.fromkeys(run["seed"] for run in runs))
    all_seeds = list(islice(chain(begun, fresh_seeds(results, begun)), seeds))
    runs += _shuffled([{"point": point, "seed": seed} for seed in all_seeds for point in dict.fromkeys(chosen)], runs)
    concurrent, blocks = search_file.file.search.concurrent, len({run["seed"] for run in runs})
    if any(demand.gpu > 0 for demand in search_file.demands()):  # see BlockSearcher
        concurrent = min(concurrent or blocks, blocks)
    document = {
        "name": f"{results.name[:92]}.confirm",
        **{key: results.study.get(key) for key in ("trainable", "objectives", "resources", "energy", "simulate")},
        "config": {},
        "search": {"sampler": "random", "concurrent": concurrent, "trackers": list(search_file.file.search.trackers)},
        "confirm": {"points": points, "runs": runs, "searched": search_file.searched},
    }
    return Study(document, str(confirmation_path(results.path) / "study.yaml"))


def fresh_seeds(results: StudyResults, begun: Iterable[int]) -> Iterator[int]:
    """Seeds that no trial of the study has had, nor the confirmation; always the same ones for a study."""
    known = {*begun, *(config.get("seed") for config in results.configs.values())}
    drawn = random.Random(f"confirm {results.name} {results.study['search']['seed']}")
    while True:
        seed = drawn.randrange(10**6)
        if seed not in known:
            known.add(seed)
            yield seed


def _point(points: dict[str, dict[str, Any]], number: int, config: dict[str, Any]) -> str:
    """The name of a trial's point, entered if it is new; trials that differ in nothing but their seed are one point."""
    kind = _without_seed(config)
    for name, known in points.items():
        if _without_seed(known) == kind:
            return name
    points[str(number)] = copy.deepcopy(config)
    return str(number)


def _without_seed(config: dict[str, Any]) -> str:
    return fingerprint({**config, "seed": 0})


def _shuffled(runs: list[dict[str, Any]], had: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those runs that are new: seed by seed, and within a seed in an order that chance has chosen."""
    new = [run for run in runs if run not in had]
    blocks = list(dict.fromkeys(run["seed"] for run in new))
    random.Random(f"order {len(had)} {new}").shuffle(new)
    return sorted(new, key=lambda run: blocks.index(run["seed"]))
