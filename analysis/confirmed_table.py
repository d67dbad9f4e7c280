"""Confirmed points in words and as a table of text, for the terminal and the report."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis.confirmed import ACCURACIES, COVERAGE, MEASURED, read_confirmed
from analysis.text import one_line
from analysis.trials import records
from sbp_tune.study.results import StudyResults
from sbp_tune.units import readable_metric

_NOTE = (
    f"Fresh seeds, the same ones for every point. Intervals are Student's t over seeds, {100 * COVERAGE:.0f} %, each "
    "for itself: of twenty points as good as dense training, one lies outside by chance. Lead: accuracy above dense "
    "training of equal energy with the same seed, in percentage points; energy vs. full dense: with the same seed."
)
_HEADERS = dict(zip(MEASURED, ("test accuracy", "val. accuracy", "energy", "time"), strict=True))


def note(points: pd.DataFrame) -> str:
    """How to read `confirmed_table`."""
    return f"{_NOTE} {pairing(points)}" if len(points) else _NOTE


def confirmed_table(points: pd.DataFrame) -> pd.DataFrame:
    """`confirmed_points` as text, a row each; what is not known is a dash."""
    rows = []
    for point in records(points):
        name = one_line(point["estimator"])
        row = {"trial": point["trial"], "estimator": f"{name} (control)" if point["role"] == "control" else name}
        row |= {_HEADERS[metric]: with_interval(point, metric) for metric in MEASURED}
        row |= {"lead": points_of(point, lead_of(point)), "energy vs. full dense": share_of(point, "kwh_change")}
        seeds = f"{point['seeds']}, {point['failed']} failed" if point["failed"] else str(point["seeds"])
        rows.append({**row, "verdict": point["verdict"] or "–", "seeds": seeds})
    columns = ["trial", "estimator", *_HEADERS.values(), "lead", "energy vs. full dense", "verdict", "seeds"]
    return pd.DataFrame(rows, columns=columns)


def sentences(points: pd.DataFrame) -> list[str]:
    """What confirmed points say of sparse against dense training; nothing without points."""
    mine = records(points[points["role"] == "point"])
    if not mine:
        return []
    verdicts = [point["verdict"] for point in mine]
    words = {
        "above": "above it by more than the interval",
        "below": "below it by more than the interval",
        "undecided": "undecided",
        "no control": "beyond what the dense controls cost",
    }
    counts = [f"{verdicts.count(verdict)} {text}" for verdict, text in words.items() if verdict in verdicts]
    number = "1 confirmed sparse point" if len(mine) == 1 else f"{len(mine)} confirmed sparse points"
    lines = [f"Of {number}, against dense training of equal energy: {', '.join(counts)}."]
    if "above" not in verdicts:
        return [
            *lines,
            "No confirmed sparse point lies above dense training of equal energy by more than its interval.",
        ]
    above = [point for point in mine if point["verdict"] == "above"]
    best = max(above, key=lambda point: point[f"{lead_of(point)}_low"])
    lead = lead_of(best)
    lines.append(
        f"The surest lead has trial {best['trial']} ({one_line(best['estimator'])}): {points_of(best, lead)} "
        f"percentage points of {lead.removeprefix('lead_').replace('_', ' ')} with {best['seeds']} fresh seeds."
    )
    if not math.isnan(best["kwh_change_low"]):
        change = points_of(best, lead.replace("lead", "vs_dense"))
        lines.append(
            f"Against the full dense baseline (trial {best['dense']:.0f}): energy {share_of(best, 'kwh_change')}, that "
            f"accuracy {change} points."
        )
    return lines


def pairing(points: pd.DataFrame) -> str:
    """Whether runs that are compared ran on one GPU."""
    known = points[points["same_gpu"].notna()]
    if known.empty:
        return "No run held a GPU: they are paired by seed alone."
    apart = int((known["seeds"] - known["same_gpu"]).sum())
    if apart:
        return f"{apart} runs had another GPU than their full dense baseline: their energies differ by the GPUs' too."
    return "Every run had the very GPU of its full dense baseline."


def print_confirmed(study: StudyResults, console: Console, interrupted: bool) -> None:
    """The table, what it says, and what to type next."""
    points = read_confirmed(study)
    mark = " (simulated)" if study.simulation else ""
    title = f"Confirmed points of {one_line(study.name)}{mark}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    texts = confirmed_table(points).drop(columns=["val. accuracy", "time"])
    for name in texts:
        table.add_column(str(name), overflow="fold")
    for row in texts.itertuples(index=False):
        table.add_row(*(Text(str(value)) for value in row))
    console.print(table)
    runs = "Interrupted; runs that ended are kept: the same command goes on." if interrupted else note(points)
    files = f"Report: {study.path / 'report.html'}   table: {study.path / 'confirmed.csv'}"
    for line in [*([study.simulation] if study.simulation else []), *sentences(points), runs, files]:
        console.print(Text(line), soft_wrap=True)


def with_interval(point: Mapping[str, Any], metric: str) -> str:
    """Mean and half the interval: accuracies in percent, the rest in its unit and relative."""
    mean, half = point[f"{metric}_mean"], point[f"{metric}_high"] - point[f"{metric}_mean"]
    if math.isnan(half) or not mean:
        return readable_metric(metric, mean)
    if metric in ACCURACIES:
        return f"{100 * mean:.2f} ± {100 * half:.2f} %"
    return f"{readable_metric(metric, mean)} ± {100 * half / mean:.1f} %"


def points_of(point: Mapping[str, Any], name: str) -> str:
    """A difference of accuracies in percentage points, with its interval."""
    return _difference(point, name, "")


def lead_of(point: Mapping[str, Any]) -> str:
    """The lead that counts: in test accuracy, or where there is none in validation accuracy."""
    leads = [f"lead_{name}" for name in ACCURACIES]
    return next((name for name in leads if not math.isnan(point[f"{name}_mean"])), leads[0])


def share_of(point: Mapping[str, Any], name: str) -> str:
    """A relative difference in percent, with its interval."""
    return _difference(point, name, " %")


def _difference(point: Mapping[str, Any], name: str, unit: str) -> str:
    mean, low, high = (100 * point[f"{name}_{key}"] for key in ("mean", "low", "high"))
    if math.isnan(mean):
        return "–"
    digits = 1 if unit else 2
    text = f"{mean:+.{digits}f}{unit}"
    return text if math.isnan(low) else f"{text} ({low:+.{digits}f} to {high:+.{digits}f})"
