"""Hypervolumes of all searches, and what they say in words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.pareto import hypervolume
from benchmarks.search_quality.problems import Pair, Problem, problems
from benchmarks.search_quality.simulator import Runs


def table(runs: Runs, at: Sequence[int]) -> pd.DataFrame:
    """A row for each problem, peer and number of evaluations.

    hypervolume: mean over seeds, in the product of the objectives' units, above the problem's fixed reference and
    of true values; error: its standard error; share: of the whole true front's; seconds: of the search itself for
    all its evaluations, CPU time.
    """
    known, rows = problems(), []
    for name, peer in dict.fromkeys((name, peer) for name, peer, _ in runs):
        found = {seed: done for (n, p, seed), done in runs.items() if (n, p) == (name, peer)}
        for count in at:
            volumes = [reached(known[name], r.values, count) for r in found.values() if len(r.values) >= count]
            if not volumes:
                continue
            mean = float(np.mean(volumes))
            error = float(np.std(volumes, ddof=1) / np.sqrt(len(volumes))) if len(volumes) > 1 else float("nan")
            row = {"problem": name, "search": peer, "evaluations": count, "hypervolume": mean, "error": error}
            seconds = float(np.mean([done.seconds for done in found.values()]))
            rows.append({**row, "share": mean / known[name].maximum, "seeds": len(volumes), "seconds": seconds})
    return pd.DataFrame(rows)


def reached(problem: Problem, values: Sequence[Pair], count: int) -> float:
    """Hypervolume of the first evaluations that ended."""
    return hypervolume(np.array(values[:count]), problem.directions, problem.reference)


def text(found: pd.DataFrame) -> str:
    """The table for a terminal, in percent of the best hypervolume there is; in brackets the seeds, where fewer."""
    at = sorted(found["evaluations"].unique())
    lines = [f"{'hypervolume, % of the maximum':32}" + "".join(f"{f'{count} evaluations':>18}" for count in at)]
    for name, rows in found.groupby("problem", sort=False):
        lines += ["", f"{name}{'':{30 - len(str(name))}}"]
        for peer, cells in rows.groupby("search", sort=False):
            line = f"  {peer:30}"
            scale = 100 * cells["share"].iloc[0] / cells["hypervolume"].iloc[0]
            for count in at:
                cell = cells[cells["evaluations"] == count]
                shown = "-"
                if len(cell):
                    mean, error = scale * cell["hypervolume"].iloc[0], scale * cell["error"].iloc[0]
                    shown = f"{mean:.1f}" if np.isnan(error) else f"{mean:.1f} ±{error:.1f}"
                    if (fewer := cell["seeds"].iloc[0]) < cells["seeds"].max():
                        shown += f" ({fewer})"
                line += f"{shown:>18}"
            lines.append(f"{line}  {cells['seeds'].max():3d} seeds{cells['seconds'].iloc[0]:8.1f} s")
    return "\n".join(lines)
