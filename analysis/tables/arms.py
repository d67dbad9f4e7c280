"""The rows of the papers' tables: each strategy on each network and data set, as means over its seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import pandas as pd

from analysis.figures.style import mark_of
from analysis.text import one_line, shown
from analysis.trials import estimator, is_complete, meaningful_config, records, useful
from sbp_tune.fingerprint import fingerprint
from sbp_tune.study.results import StudyResults, confirmation_path, load_study

METRICS = ("accuracy", "f1", "roc_auc", "train_time_s", "kwh", "co2_kg")
"""What the tables show, accuracy, f1 and roc_auc as fractions; of the test images where a run was tested."""

_OF_TEST = {"accuracy": "test_accuracy", "f1": "test_f1", "roc_auc": "test_roc_auc"}
_OF_VALIDATION = {"accuracy": "val_accuracy", "f1": "f1", "roc_auc": "roc_auc"}
Run = dict[str, Any]
_ARM = ["model", "data", "others", "strategy", "device"]
_BESIDE_ARM = ("model.name", "data.name", "data.class_count", "seed")  # no names of their own among the factors
COLUMNS = [
    *(*_ARM, "best", "trial", "estimator", "p", "runs", "configs", "confirmed", "split", "measured_share", "config"),
    *METRICS,
    *(f"{name}_se" for name in METRICS),
    *("saved", "saved_se"),
]


class Arms(NamedTuple):
    """rows: one for each arm, that is for each network (model), data set (data), other factors and strategy on a kind
    of device; in the order in which networks and data sets first ran, dense before the others.

    Columns: those of `COLUMNS`. best: whether it is the best config of its strategy, or else one that was confirmed,
    whose strategy then names its trial; p: the keep fraction of a constant schedule, 1 if dense, else NaN; runs: seeds
    of the config; configs: how many of its strategy ran; confirmed: whether its runs are those of a confirmation;
    split: 'test' or 'validation', the images of which accuracy, f1 and roc_auc are; measured_share: of the energy;
    config: dotted keys and values; each of METRICS with `<metric>_se`, its standard error over seeds (NaN for one);
    saved: 1 - kwh / kwh of the best dense config of the same model, data, others and device, by the seeds that both
    have, if any. What was not recorded is NaN.

    left_out: how many trials of each other state than complete there were; simulations: of simulated studies.
    """

    rows: pd.DataFrame
    left_out: dict[str, int]
    simulations: list[str]


def arms_info(*studies: StudyResults, every_p: bool = False) -> Arms:
    """The arms of studies, pooled: runs of one config with several seeds are repeats, whatever study they are of.

    A config key with a `grid`, or one of `cases`, is a factor: each value is shown. Of what a sampler searched, shown
    are each strategy's config of best validation accuracy in the search (of equal ones that of less kWh), and all that
    were confirmed. Of a confirmed config the runs of the confirmation alone count, not the one it was picked for.
    every_p: each keep fraction is a strategy of its own.
    """
    factors = list(dict.fromkeys(key for study in studies for key in factor_keys(study.study)))
    confirmations = [confirmation_path(study.path) for study in studies]
    runs = [run for place, study in enumerate(studies) for run in _runs(study, place)]
    for place, path in enumerate(confirmations):
        runs += _runs(load_study(path), place) if (path / "study.db").is_file() else []
    states = pd.concat([study.trials["state"] for study in studies]) if studies else pd.Series(dtype=str)
    return Arms(
        rows=pd.DataFrame(_arms(runs, [*factors, *(["sparsity.p0"] if every_p else [])]), columns=COLUMNS),
        left_out={str(state): int(n) for state, n in states.value_counts().items() if state != "complete"},
        simulations=list(dict.fromkeys(study.simulation for study in studies if study.simulation)),
    )


def factor_keys(document: dict[str, Any]) -> list[str]:
    """Dotted keys of a study file that run with each of several values: those of a grid, and those of its cases."""
    cases = [key for case in (document.get("cases") or {}).values() for key in _leaves(case)]
    return list(dict.fromkeys([*_grids(document.get("config") or {}), *cases]))


def _grids(tree: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, node in tree.items():
        if isinstance(node, dict) and "grid" in node:
            yield f"{prefix}{key}"
        elif isinstance(node, dict):
            yield from _grids(node, f"{prefix}{key}.")


def _leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, node in tree.items():
        if isinstance(node, dict):
            yield from _leaves(node, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _runs(study: StudyResults, place: int) -> list[Run]:
    """The complete trials of a study; place: by which trials without a seed are kept apart."""
    complete = is_complete(study)
    names = ("val_accuracy", "kwh_measured_share", "train_time_s", "kwh", "co2_kg")
    columns = {name: useful(study, name) for name in (*names, *_OF_TEST.values(), *_OF_VALIDATION.values())}
    columns |= {"trial": study.trials["trial"], "estimator": estimator(study), "device": _column(study, "device")}
    confirmed = bool(study.study.get("confirm"))
    runs = []
    for row, values in zip(
        records(pd.DataFrame(columns)[complete]), records(meaningful_config(study)[complete]), strict=True
    ):
        number, tested = int(row["trial"]), not math.isnan(row["test_accuracy"])
        config = {key: value for key, value in values.items() if value is not None}
        whole = study.config_of(number)
        run = {name: row[name] for name in names}
        run |= {name: row[source] for name, source in (_OF_TEST if tested else _OF_VALIDATION).items()}
        run |= {
            "tested": tested,
            "confirmed": confirmed,
            "trial": _trial_of(study, number),
            "model": one_line(config.get("model.name", study.name)),
            "data": _data_label(config),
            "estimator": one_line(row["estimator"]),
            "device": one_line(row["device"]) if isinstance(row["device"], str) else "",
            "identity": fingerprint({**whole, "seed": 0}),
            "seed": str(whole.get("seed", f"{place} {number}")),
            "config": config,
        }
        runs.append(run)
    return runs


def _trial_of(study: StudyResults, number: int) -> int:
    """The number of a trial; in a confirmation that of the search's trial which it repeats."""
    confirm = study.study.get("confirm")
    return int(confirm["runs"][number]["point"]) if confirm else number


def _column(study: StudyResults, name: str) -> pd.Series:
    return study.trials[name] if name in study.trials else pd.Series(None, index=study.trials.index, dtype=object)


def _data_label(config: dict[str, Any]) -> str:
    name, count = config.get("data.name", ""), config.get("data.class_count")
    return one_line(name) if count is None else f"{one_line(name)} ({count:.0f} classes)"


def _constant_p(config: dict[str, Any]) -> float:
    if config.get("sparsity.estimator") == "dense":
        return 1.0
    is_constant = config.get("sparsity.schedule", "constant") == "constant"
    return float(config["sparsity.p0"]) if is_constant and "sparsity.p0" in config else math.nan


def _told(runs: Sequence[Run], factors: Sequence[str]) -> list[str]:
    """Keys of the sparsity section that are factors and differ between the sparse runs: what tells strategies apart."""
    sparse = [run["config"] for run in runs if run["config"].get("sparsity.estimator") != "dense"]
    keys = dict.fromkeys(key for config in sparse for key in config if key.startswith("sparsity."))
    known = ("sparsity.estimator", "sparsity.schedule")
    return [
        key
        for key in keys
        if key not in known and is_factor(key, factors) and len({str(config.get(key)) for config in sparse}) > 1
    ]


def _strategy(config: dict[str, Any], told: Sequence[str]) -> str:
    """Estimator, schedule where p changes, and the keys that are told: 'mask linear', 'mask, p = 0.1'."""
    schedule = config.get("sparsity.schedule", "constant")
    words = [one_line(config.get("sparsity.estimator", "unknown")), *([] if schedule == "constant" else [schedule])]
    details: list[str] = []
    for key in told:
        name, value = key.removeprefix("sparsity."), config.get(key)
        if value is None:
            continue
        if name == "p0":
            details.insert(0, f"p = {value:.4g}" if schedule == "constant" else f"p0 = {value:.4g}")
        elif name.startswith("steps."):
            details.append(f"{shown(value)} from epoch {name.removeprefix('steps.')}")
        else:
            details.append(f"{name} {shown(value)}")
    return ", ".join([" ".join(map(one_line, words)), *map(one_line, details)])


def is_factor(key: str, factors: Sequence[str]) -> bool:
    """Whether a dotted key is one of the factors, or lies in one that is a whole section."""
    return any(key == factor or key.startswith(f"{factor}.") for factor in factors)


def _arms(runs: list[Run], factors: Sequence[str]) -> list[dict[str, Any]]:
    told, others = _told(runs, factors), _others(runs, factors)
    strategies: dict[tuple[str, ...], list[Run]] = {}
    for run, other in zip(runs, others, strict=True):
        run = {**run, "others": other, "strategy": _strategy(run["config"], told)}
        strategies.setdefault(tuple(run[name] for name in _ARM), []).append(run)
    first = [{name: place for place, name in reversed(list(enumerate(of)))} for of in zip(*strategies, strict=True)]
    arms = []  # each with its place in the table, and its kWh by seed
    for key, strategy in strategies.items():
        for place, identity in enumerate(_shown(strategy)):
            of_config = [run for run in strategy if run["identity"] == identity]
            row, kwh = _arm(dict(zip(_ARM, key, strict=True)), of_config, best=place == 0)
            row["configs"] = len({run["identity"] for run in strategy})
            model, data, other, name, device = (places[part] for places, part in zip(first, key, strict=True))
            order = (model, data, mark_of(row["estimator"]).rank, name, other, device, not row["best"], row["trial"])
            arms.append((order, row, kwh))
    dense = {_without_strategy(row): kwh for _, row, kwh in arms if _is_control(row)}
    for _, row, kwh in arms:
        row |= _saved(row, kwh, dense.get(_without_strategy(row)))
        if not row["best"]:
            row["strategy"] = f"{row['strategy']}, trial {row['trial']}"
    return [row for _, row, _ in sorted(arms, key=lambda arm: arm[0])]


def _arm(row: dict[str, Any], runs: list[Run], best: bool) -> tuple[dict[str, Any], dict[str, float]]:
    """One row of the runs of a config, and its kWh by seed."""
    trial = min(run["trial"] for run in runs)
    runs = [run for run in runs if run["confirmed"]] or runs
    seeds: dict[str, list[Run]] = {}
    for run in runs:
        seeds.setdefault(run["seed"], []).append(run)
    values = {
        name: {seed: mean_se([run[name] for run in of])[0] for seed, of in seeds.items()}
        for name in (*METRICS, "kwh_measured_share")
    }
    row |= {
        "best": best,
        "trial": trial,
        "estimator": runs[0]["estimator"],
        "p": _constant_p(runs[0]["config"]),
        "runs": len(seeds),
        "confirmed": runs[0]["confirmed"],
        "split": "test" if all(run["tested"] for run in runs) else "validation",
        "measured_share": mean_se(values["kwh_measured_share"].values())[0],
        "config": runs[0]["config"],
    }
    for name in METRICS:
        row[name], row[f"{name}_se"] = mean_se(values[name].values())
    return row, values["kwh"]


def mean_se(values: Iterable[float]) -> tuple[float, float]:
    """Mean and its standard error, of the values that are numbers; NaN where there are too few."""
    known = [value for value in values if not math.isnan(value)]
    mean = statistics.fmean(known) if known else math.nan
    return mean, statistics.stdev(known) / math.sqrt(len(known)) if len(known) > 1 else math.nan


def _is_control(row: dict[str, Any]) -> bool:
    return bool(row["estimator"] == "dense" and row["best"])


def _without_strategy(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in _ARM if name != "strategy")


def _others(runs: Sequence[Run], factors: Sequence[str]) -> list[str]:
    """The other factors of each run in words: those that network and data set do not decide by themselves."""
    varying = []
    for key in dict.fromkeys(key for run in runs for key in run["config"] if is_factor(key, factors)):
        if key in _BESIDE_ARM or key.startswith("sparsity."):
            continue
        pairs = {(run["model"], run["data"], str(run["config"].get(key))) for run in runs}
        if len(pairs) > len({pair[:2] for pair in pairs}):
            varying.append(key)
    return [
        ", ".join(f"{key.rpartition('.')[2]} {shown(run['config'][key])}" for key in varying if key in run["config"])
        for run in runs
    ]


def _shown(strategy: list[Run]) -> list[str]:
    """Configs of a strategy that have a row: the best first, then those confirmed besides."""
    judged: dict[str, list[Run]] = {}
    for run in [run for run in strategy if not run["confirmed"]] or strategy:
        judged.setdefault(run["identity"], []).append(run)

    def worth(identity: str) -> tuple[float, float]:
        accuracy, kwh = (mean_se([run[name] for run in judged[identity]])[0] for name in ("val_accuracy", "kwh"))
        return (math.inf if math.isnan(accuracy) else -accuracy, math.inf if math.isnan(kwh) else kwh)

    confirmed = [run["identity"] for run in strategy if run["confirmed"]]
    return list(dict.fromkeys([min(judged, key=worth), *confirmed]))


def _saved(row: dict[str, Any], mine: dict[str, float], dense: dict[str, float] | None) -> dict[str, float]:
    if _is_control(row) or dense is None:
        return {"saved": math.nan, "saved_se": math.nan}
    both = [1 - mine[seed] / dense[seed] for seed in mine if dense.get(seed, 0) > 0 and not math.isnan(mine[seed])]
    if both:
        mean, se = mean_se(both)
        return {"saved": mean, "saved_se": se}
    ours, theirs = mean_se(mine.values())[0], mean_se(dense.values())[0]
    return {"saved": 1 - ours / theirs if theirs > 0 else math.nan, "saved_se": math.nan}
