"""The scheduler's section of the study file: where it looks at trials, at what, and settings that would do nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sbp_tune.study.rungs import Ladder

if TYPE_CHECKING:
    from sbp_tune.study.sections import SearchConfig

COSTS = ("kwh", "co2_kg", "train_time_s", "tflop")


def ladder_of(search: SearchConfig, longest: int) -> Ladder:
    """Where the scheduler looks at a trial, of a search whose longest proposed training is of so many epochs."""
    factor = search.reduction_factor
    if factor is None:  # three rungs, each at the same share of what is left
        factor = max(2.0, (longest / search.grace_period) ** (1 / 3))
    return Ladder(search.grace_period, factor, search.brackets)


def ranked_objectives(search: SearchConfig, objectives: dict[str, str]) -> dict[str, str]:
    """What trials are compared by: all objectives, or for asha the first that is not a cost; nothing for none."""
    if search.scheduler == "asha":
        return dict([item for item in objectives.items() if item[0] not in COSTS][:1])
    return objectives if search.scheduler == "moasha" else {}


def scheduler_problems(search: SearchConfig, objectives: dict[str, str], longest: int) -> list[str]:
    """What would do nothing in a search whose longest proposed training is of so many epochs."""
    if search.scheduler == "none":  # not by what is written there: a resolved file names every default
        idle = {
            name: getattr(search, name) for name in ("halving", "grace_period", "reduction_factor", "brackets", "rank")
        }
        return [
            f"search.{name}: found {value}, but search.scheduler is none, which stops no trial"
            for name, value in idle.items()
            if value != type(search).model_fields[name].default
        ]
    problems = []
    if not ranked_objectives(search, objectives):
        problems.append(f"search.scheduler: found asha; needs an objective besides {', '.join(COSTS)}")
    if search.scheduler == "asha" and search.rank != "epsnet":
        problems.append(f"search.rank: found {search.rank}, but asha ranks by one objective alone")
    ladder, brackets = ladder_of(search, longest), {"grace_period": 0, "brackets": search.brackets - 1}
    late = {key: first for key, bracket in brackets.items() if (first := next(ladder.epochs(bracket))) >= longest}
    for key, first in list(late.items())[:1]:
        problems.append(
            f"search.{key}: found {getattr(search, key)}; a first rung would be at epoch {first}, "
            f"but no searched trial trains longer than {longest}: nothing to stop"
        )
    return problems
