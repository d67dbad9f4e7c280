"""The rows of the papers' tables: each strategy on each network and data set, as means over its seeds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pandas as pd

from analysis.confirmed import interval
from analysis.figures.style import mark_of
from analysis.text import one_line, shown
from analysis.trials import estimator, is_complete, meaningful_config, records, useful
from sbp_tune.fingerprint import fingerprint
from sbp_tune.study.results import StudyResults, confirmation_path, load_study

METRICS = ("accuracy", "f1", "roc_auc", "train_time_s", "kwh", "co2_kg")
"""What the tables show, accuracy, f1 and roc_auc as fractions; of the test images where a run was tested."""

_OF_TEST = {"accuracy": "test_accuracy", "f1": "test_f1", "roc_auc": "test_roc_auc"}
_OF_VALIDATION = {"accuracy": "val_accuracy", "f1": "f1", "roc_auc": "roc_auc"}
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
    factors = tuple(dict.fromkeys(key for study in studies for key in factor_keys(study.study)))
    tables = [_runs(study, place) for place, study in enumerate(studies)]
    confirmations = [confirmation_path(study.path) for study in studies]
    tables += [
        _runs(load_study(path), place) for place, path in enumerate(confirmations) if (path / "study.db").is_file()
    ]
    runs = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=COLUMNS)
    states = pd.concat([study.trials["state"] for study in studies]) if studies else pd.Series(dtype=str)
    return Arms(
        rows=_arms(runs, [*factors, *(["sparsity.p0"] if every_p else [])]),
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


def _runs(study: StudyResults, place: int) -> pd.DataFrame:
    """The complete trials of a study, a row each; place: by which trials without a seed are kept apart."""
    complete = is_complete(study)
    config = meaningful_config(study)[complete]
    configs = [{key: value for key, value in row.items() if value is not None} for row in records(config)]
    numbers = [int(number) for number in study.trials["trial"][complete]]
    tested = useful(study, "test_accuracy")[complete].notna().to_numpy()

    def values(name: str) -> pd.Series:
        return useful(study, name)[complete].reset_index(drop=True)

    frame = pd.DataFrame({name: values(name) for name in ("val_accuracy", "train_time_s", "kwh", "co2_kg")})
    for name in _OF_TEST:
        frame[name] = values(_OF_TEST[name]).where(tested, values(_OF_VALIDATION[name]))
    frame["tested"], frame["measured_share"] = tested, values("kwh_measured_share")
    frame["model"] = [one_line(one.get("model.name", study.name)) for one in configs]
    frame["data"] = [_data_label(one) for one in configs]
    frame["estimator"] = estimator(study)[complete].map(one_line).array
    frame["p"] = [_constant_p(one) for one in configs]
    frame["device"] = [one_line(name) if isinstance(name, str) else "" for name in _column(study, "device")[complete]]
    frame["trial"] = [_trial_of(study, number) for number in numbers]
    frame["identity"] = [fingerprint({**study.config_of(number), "seed": 0}) for number in numbers]
    frame["seed"] = [str(study.config_of(number).get("seed", f"{place} {number}")) for number in numbers]
    frame["config"], frame["confirmed"] = configs, bool(study.study.get("confirm"))
    return frame


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


def _told(runs: pd.DataFrame, factors: Sequence[str]) -> list[str]:
    """Keys of the sparsity section that are factors and differ between the sparse runs: what tells strategies apart."""
    sparse = [config for config in runs["config"] if config.get("sparsity.estimator") != "dense"]
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
    details = []
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


def _arms(runs: pd.DataFrame, factors: Sequence[str]) -> pd.DataFrame:
    if runs.empty:
        return pd.DataFrame(columns=COLUMNS)
    told = _told(runs, factors)
    runs = runs.assign(others=_others(runs, factors), strategy=[_strategy(one, told) for one in runs["config"]])
    first = {column: dict(zip(runs[column].unique(), range(len(runs)), strict=False)) for column in _ARM}
    rows, kwh = [], []
    for key, strategy in runs.groupby(_ARM, sort=False):
        identities = _shown(strategy)
        for place, identity in enumerate(identities):
            of_config = strategy[strategy["identity"] == identity]
            trial = int(of_config["trial"].min())
            if of_config["confirmed"].any():
                of_config = of_config[of_config["confirmed"]]
            seeds = of_config.groupby("seed")[[*METRICS, "measured_share"]].mean()
            kwh.append(seeds["kwh"])
            row = dict(zip(_ARM, key, strict=True)) | {
                "best": place == 0,
                "trial": trial,
                "estimator": of_config["estimator"].iloc[0],
                "p": of_config["p"].iloc[0],
                "runs": len(seeds),
                "configs": strategy["identity"].nunique(),
                "confirmed": bool(of_config["confirmed"].iloc[0]),
                "split": "test" if of_config["tested"].all() else "validation",
                "measured_share": seeds["measured_share"].mean(),
                "config": of_config["config"].iloc[0],
            }
            for name in METRICS:
                found = interval(seeds[name])
                row |= {name: found.mean, f"{name}_se": found.se}
            rows.append(row)
    dense = {_without_strategy(row): energies for row, energies in zip(rows, kwh, strict=True) if _is_control(row)}
    for row, energies in zip(rows, kwh, strict=True):
        row |= _saved(row, energies, dense.get(_without_strategy(row)))
    table = pd.DataFrame(rows, columns=COLUMNS)
    order = pd.DataFrame({column: table[column].map(first[column]) for column in _ARM})
    order["rank"] = [mark_of(name).rank for name in table["estimator"]]
    order["rest"], order["trial"] = ~table["best"], table["trial"]
    order = order.sort_values(["model", "data", "rank", "strategy", "others", "device", "rest", "trial"], kind="stable")
    named = table["strategy"] + ", trial " + table["trial"].astype(str)
    table["strategy"] = table["strategy"].where(table["best"], named)
    return table.loc[order.index].reset_index(drop=True)


def _is_control(row: dict[str, Any]) -> bool:
    return bool(row["estimator"] == "dense" and row["best"])


def _without_strategy(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in _ARM if name != "strategy")


def _others(runs: pd.DataFrame, factors: Sequence[str]) -> list[str]:
    """The other factors of each run in words: those that network and data set do not decide by themselves."""
    keys = dict.fromkeys(key for config in runs["config"] for key in config if is_factor(key, factors))
    varying = []
    for key in keys:
        if key in _BESIDE_ARM or key.startswith("sparsity."):
            continue
        values = pd.Series([str(config.get(key)) for config in runs["config"]], index=runs.index)
        if values.groupby([runs["model"], runs["data"]]).nunique().max() > 1:
            varying.append(key)
    return [
        ", ".join(f"{key.rpartition('.')[2]} {shown(config[key])}" for key in varying if key in config)
        for config in runs["config"]
    ]


def _shown(strategy: pd.DataFrame) -> list[str]:
    """Configs of a strategy that have a row: the best first, then those confirmed besides."""
    searched = strategy[~strategy["confirmed"]]
    judged = searched if len(searched) else strategy
    means = judged.groupby("identity", sort=False)[["val_accuracy", "kwh"]].mean()
    best = means.sort_values(["val_accuracy", "kwh"], ascending=[False, True], kind="stable").index[0]
    confirmed = strategy.loc[strategy["confirmed"], "identity"]
    return [str(identity) for identity in dict.fromkeys([best, *confirmed])]


def _saved(row: dict[str, Any], mine: pd.Series, dense: pd.Series | None) -> dict[str, float]:
    if _is_control(row) or dense is None:
        return {"saved": math.nan, "saved_se": math.nan}
    shares = (1 - mine / dense.where(dense > 0)).dropna()
    if shares.empty:
        found = 1 - mine.mean() / dense.mean() if dense.mean() > 0 else math.nan
        return {"saved": float(found), "saved_se": math.nan}
    share = interval(shares)
    return {"saved": share.mean, "saved_se": share.se}
