"""The table of the comparison, and what it says in words."""

from __future__ import annotations

import json
import statistics
from typing import Any

import pandas as pd

from benchmarks.frontier.contest import Entry
from benchmarks.frontier.jobs import Result
from benchmarks.frontier.leads import covered, estimate, lead

AXES = ("tflop", "seconds")
Runs = dict[Entry, dict[int, Result]]  # by seed


def table(runs: Runs, points: dict[Entry, dict[str, Any]], fresh: Runs) -> pd.DataFrame:
    """A row for each entry: cost, accuracy, and leads over dense training of the same cost.

    Costs are means over seeds, also as a ratio to the dense run of all epochs; accuracies and leads are in
    percent and points with 95 % intervals. `fresh`: runs with seeds that no choice was made on.
    """
    rows = []
    for entry, results in runs.items():
        controls = [found for other, found in runs.items() if other.regime == entry.regime and other.is_control]
        whole = controls[-1]
        row: dict[str, Any] = {"regime": entry.regime, "arm": entry.name, "tuned": json.dumps(points[entry])}
        accuracy = estimate([100 * (result.test_accuracy or 0.0) for result in results.values()])
        row |= {"accuracy": accuracy.mean, "accuracy_low": accuracy.low, "accuracy_high": accuracy.high}
        row["seeds"] = accuracy.seeds
        for axis in AXES:
            cost, dense = (statistics.fmean(getattr(r, axis) for r in found.values()) for found in (results, whole))
            row |= {axis: cost, f"{axis}_ratio": cost / dense}
            if entry.is_control:
                continue
            found = lead(results, controls, axis)
            verdict = found.verdict if covered(results, controls, axis) else "no control"
            row |= {f"{axis}_lead": found.mean, f"{axis}_lead_low": found.low, f"{axis}_lead_high": found.high}
            row[f"{axis}_verdict"] = verdict
            if entry in fresh:
                again = [seeds for other, seeds in fresh.items() if other.regime == entry.regime and other.is_control]
                found = lead(fresh[entry], again, axis)
                row |= {f"{axis}_fresh_lead": found.mean, f"{axis}_fresh_low": found.low}
                row |= {f"{axis}_fresh_high": found.high, "fresh_seeds": found.seeds}
        measured = [r.kwh for r in results.values() if r.kwh is not None and r.measured_share]
        row["kwh_measured"] = statistics.fmean(measured) if len(measured) == len(results) else None
        rows.append(row)
    return pd.DataFrame(rows)


def text(found: pd.DataFrame) -> str:
    """The table for a terminal, and a line for each regime on who lies above the control."""
    lines = []
    for regime, rows in found.groupby("regime", sort=False):
        lines += [
            "",
            f"{regime:18}{'accuracy %':>16}{'FLOPs':>8}{'time':>7}{'lead at equal FLOPs':>22}{'at equal time':>20}",
        ]
        for row in rows.itertuples():
            half = row.accuracy_high - row.accuracy
            line = f"{row.arm:18}{row.accuracy:9.2f} ±{half:5.2f}{row.tflop_ratio:8.3f}{row.seconds_ratio:7.3f}"
            if not row.arm.startswith("dense"):
                for axis, width in zip(AXES, (22, 20), strict=True):
                    value = getattr(row, f"{axis}_lead")
                    spread = getattr(row, f"{axis}_lead_high") - value
                    line += f"{f'{value:+.2f} ±{spread:.2f}':>{width}}"
            lines.append(line)
        lines.append(sentence(str(regime), rows))
    never = sorted(set(sparse_arms(found).arm) - set(sparse_arms(found).loc[lambda rows: is_above(rows), "arm"]))
    return "\n".join([*lines, "", f"Nowhere shown to lie above: {', '.join(never) or 'none'}."])


def sentence(regime: str, rows: pd.DataFrame) -> str:
    """Who lies above dense training of the same FLOPs in a regime, by how much."""
    arms = sparse_arms(rows)
    above = arms[is_above(arms)]
    if above.empty:
        return f"{regime}: no sparse arm is shown to lie above the dense control of its FLOPs."
    shown = []
    for row in above.itertuples():
        mean, low, high = (
            (row.tflop_fresh_lead, row.tflop_fresh_low, row.tflop_fresh_high)
            if _has_fresh(row)
            else (row.tflop_lead, row.tflop_lead_low, row.tflop_lead_high)
        )
        shown.append(f"{row.arm} by {mean:.2f} points ({low:.2f} to {high:.2f})")
    return f"{regime}: above the dense control of its FLOPs: {'; '.join(shown)}."


def sparse_arms(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[~rows["arm"].str.startswith("dense")]


def is_above(rows: pd.DataFrame) -> pd.Series:
    """By the fresh seeds where there are some: the first ones chose who is looked at again."""
    first = rows["tflop_verdict"] == "above"
    if "tflop_fresh_low" not in rows:
        return first
    return (rows["tflop_fresh_low"] > 0).where(rows["tflop_fresh_low"].notna(), first)


def _has_fresh(row: Any) -> bool:
    return pd.notna(getattr(row, "tflop_fresh_lead", None))
