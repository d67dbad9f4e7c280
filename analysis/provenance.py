"""Where an exported config is from: study, trial, seeds, metrics, device, versions; as data and as a header's lines."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from analysis.confirmed import COVERAGE, DIFFERENCES, LEADS, MEASURED, confirmed_points, confirmed_runs
from analysis.confirmed_table import lead_of, points_of, share_of, with_interval
from analysis.text import one_line
from analysis.trials import records, useful
from sbp_tune.fingerprint import fingerprint
from sbp_tune.study.results import SOURCES, StudyResults
from sbp_tune.study.versions import GIT
from sbp_tune.units import readable_metric

_PLACE = ("country", "region", "cloud", "cloud_region")
_METRICS = ("val_accuracy", "kwh", "kwh_measured_share", "co2_kg", "mean_power_w", "train_time_s", "tflop")
_TITLES = {
    "val_accuracy": "val. accuracy",
    "kwh": "energy",
    "co2_kg": "CO2eq",
    "train_time_s": "time",
    "tflop": "TFLOP",
}
_CONFIRMED_TITLES = dict(zip(MEASURED, ("test accuracy", "val. accuracy", "energy", "time"), strict=True))
_STATISTICS = ("mean", "se", "low", "high")
_LEAD, _CHANGE = "confirmed lead over dense of equal energy", "confirmed energy vs. full dense"
_SOURCE_TEXTS = {
    ("gpu", "counter"): "measured (NVML's energy counter)",
    ("cpu", "counter"): "measured (RAPL)",
    ("ram", "counter"): "measured (RAPL)",
    "integrated": "measured (power summed up)",
    "model": "modelled",
    "none": "not measured",
}

METRIC_TITLES = (*_TITLES.values(), *(f"confirmed {title}" for title in _CONFIRMED_TITLES.values()), _LEAD, _CHANGE)
"""What `metric_texts` may name."""


def provenance(study: StudyResults, row: pd.Series, pick: str) -> dict[str, Any]:
    """Of a complete trial, as plain data; None for what is not known.

    metrics: of the trial's one run, in stored units, kWh and CO2 without what crashes wasted. confirmed: None, or of
    the repeats of its config with fresh seeds: seeds, verdict and metrics, each with mean, standard error and the
    ends of its interval (see `analysis.confirmed.confirmed_points`).
    """
    number = int(row["trial"])
    mine = study.trials["trial"] == number
    config = study.config_of(number)
    place, versions = config.get("energy") or {}, dict(study.versions)
    return {
        "study": one_line(study.name),
        "trial": number,
        "trial_id": one_line(row["trial_id"]) if row.get("trial_id") else None,
        "picked_by": one_line(pick),
        "seed": config.get("seed"),
        "metrics": {name: _plain(useful(study, name)[mine].iloc[0]) for name in _METRICS},
        "confirmed": _confirmed(study, number),
        "device": _text(row.get("device")),
        "energy_source": {
            name.removeprefix("kwh_").removesuffix("_source"): _text(row.get(name))
            for name in SOURCES
            if _text(row.get(name)) is not None
        },
        "place": {key: one_line(place[key]) for key in _PLACE if place.get(key)},
        "simulated": one_line(study.simulation) if study.simulation else None,
        "git": versions.pop(GIT, None),
        "versions": {name: one_line(version) for name, version in versions.items()},
        "exported": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
    }


def metric_texts(origin: dict[str, Any]) -> dict[str, str]:
    """The metrics of a `provenance` as text by title, the confirmed ones with their intervals."""
    texts = {title: readable_metric(name, _number(origin["metrics"].get(name))) for name, title in _TITLES.items()}
    if confirmed := origin["confirmed"]:
        values = confirmed["metrics"]
        point = {f"{name}_{key}": _number(values[name][key]) for name in values for key in _STATISTICS}
        texts |= {f"confirmed {title}": with_interval(point, name) for name, title in _CONFIRMED_TITLES.items()}
        texts |= {_LEAD: f"{points_of(point, lead_of(point))} pp", _CHANGE: share_of(point, "kwh_change")}
    return {title: text for title, text in texts.items() if not text.startswith("–")}


def header_lines(origin: dict[str, Any]) -> list[str]:
    """A `provenance` as lines of `title: text`, for people and for `compare`."""
    trial = str(origin["trial"]) + (f" ({origin['trial_id']})" if origin["trial_id"] else "")
    confirmed, sources = origin["confirmed"], origin["energy_source"]
    share = readable_metric("kwh_measured_share", _number(origin["metrics"]["kwh_measured_share"]))
    lines = [
        f"study: {origin['study']}",
        f"trial: {trial}, picked by {origin['picked_by']}",
        f"seed: {origin['seed']}",
        *([origin["simulated"]] if origin["simulated"] else []),
        *(f"{title}: {text}" for title, text in metric_texts(origin).items()),
    ]
    if confirmed:
        seeds = ", ".join(map(str, confirmed["seeds"])) or "none has ended"
        lines.append(
            f"confirmed: {confirmed['verdict'] or 'dense control'}; fresh seeds {seeds}; "
            f"± and brackets: {100 * COVERAGE:.0f} % intervals"
        )
    else:
        lines.append("confirmed: no; one run with one seed")
    known = ", ".join(f"{name.upper()} {_source_text(name, source)}" for name, source in sources.items())
    lines += [
        f"energy source: {known or 'not recorded'}; {share} measured",
        f"device: {origin['device'] or 'not recorded'}",
        *([f"place: {' '.join(origin['place'].values())}"] if origin["place"] else []),
        f"versions: {', '.join(f'{name} {version}' for name, version in origin['versions'].items())}",
        f"git revision: {origin['git'] or 'not recorded'}",
        f"exported: {origin['exported']}",
    ]
    return [one_line(line) for line in lines]


def _confirmed(study: StudyResults, number: int) -> dict[str, Any] | None:
    """What is confirmed of a trial's config: a trial that differs in its seed alone has the same repeats."""
    runs = confirmed_runs(study)
    alike = _without_seed(study, number)
    same = [point for point in dict.fromkeys(runs["point"]) if _without_seed(study, point) == alike]
    if not same:
        return None
    points = confirmed_points(study, runs)
    point = records(points[points["trial"] == same[0]])[0]
    complete = runs[(runs["point"] == same[0]) & (runs["state"] == "complete")]
    return {
        "point": same[0],
        "seeds": [int(seed) for seed in complete["seed"]],
        "verdict": point["verdict"] or None,
        "coverage": COVERAGE,
        "metrics": {
            name: {key: _plain(point[f"{name}_{key}"]) for key in _STATISTICS}
            for name in (*MEASURED, *LEADS, *DIFFERENCES, "kwh_change")
        },
    }


def _without_seed(study: StudyResults, number: int) -> str:
    return fingerprint({**study.configs.get(number, {}), "seed": None})


def _source_text(component: str, source: str) -> str:
    return _SOURCE_TEXTS.get((component, source)) or _SOURCE_TEXTS.get(source) or source


def _plain(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _text(value: Any) -> str | None:
    return one_line(value) if isinstance(value, str) else None
