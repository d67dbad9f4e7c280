"""Our arms with the papers' rows beneath those of the same config, and what must be said of both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import pandas as pd

from analysis.tables.arms import METRICS, Arms
from analysis.tables.cells import NOTHING
from analysis.tables.published import Published, cite, footnotes, published_rows
from analysis.text import one_line
from analysis.trials import records

_STATES = {"failed": "failed", "stopped": "stopped early", "running": "running", "interrupted": "interrupted"}


class TableInfo(NamedTuple):
    """rows: as of `arms_info`, and the papers' rows where they are asked for; of these all that was not printed is NaN.

    Beside the columns of arms: block (the data set of the table in which a row stands; of a paper's row for which
    there is no arm of ours, that of its network's arms), source (empty for ours), label (the strategy, or the paper's
    name for it), printed (metric to `Number`; empty for ours). notes: sentences, in their order.
    """

    rows: pd.DataFrame
    notes: tuple[str, ...]

    @property
    def units_are_printed(self) -> bool:
        """Whether the papers' own units must do."""
        return bool((self.rows["source"] != "").any())

    @property
    def several_splits(self) -> bool:
        """Whether some of our arms were tested and some not."""
        return self.rows["split"][self.rows["source"] == ""].nunique() > 1


def table_info(arms: Arms, table: str, published: bool, also: Sequence[str] = ()) -> TableInfo:
    """The rows of one of our tables; also: sentences that only it needs, put before those of the papers."""
    ours = arms.rows.assign(block=arms.rows["data"], source="", label=arms.rows["strategy"])
    ours["printed"] = pd.Series([{} for _ in range(len(ours))], index=ours.index, dtype=object)
    papers: list[str] = []
    rows = ours
    if published:
        found = _of_our_networks(ours, published_rows(table))
        papers = list(dict.fromkeys(row.paper for row, _ in found))
        rows = _merged(ours, found, papers)
    notes = [*arms_notes(arms, accuracies=table != "energy"), *also]
    if published and not papers:
        notes.append("The papers print nothing of this kind on these networks and data sets.")
    for paper in papers:
        mark = mark_of_paper(papers.index(paper))
        sources = list(dict.fromkeys(row.source for row, _ in found if row.paper == paper))
        said = " ".join([f"{cite(paper)}.", *footnotes(paper)])
        notes.append(f"{mark} Published, {', '.join(sources)}, accuracies of test images: {said}")
    return TableInfo(rows.reset_index(drop=True), tuple(notes))


def mark_of_paper(place: int) -> str:
    """What stands behind the rows of a paper, and before its note."""
    return f"[{chr(ord('a') + place)}]"


def row_text(row: dict[str, Any], several_splits: bool) -> str:
    """The strategy, with a dagger where its accuracies are not those of the test images though others' are."""
    return f"{row['label']} †" if several_splits and row["split"] == "validation" else row["label"]


def runs_text(row: dict[str, Any]) -> str:
    """How many runs stand behind a row: '1', '3', '3 fresh' where they confirm; of a paper's row nothing."""
    if row["source"]:
        return NOTHING
    return f"{row['runs']} fresh" if row["confirmed"] else f"{row['runs']}"


def arms_notes(arms: Arms, accuracies: bool) -> list[str]:
    """What a table must say of its arms: simulations, repeats, choice, how the energy is known.

    accuracies: whether it shows any, and so must say of which images.
    """
    rows, notes = arms.rows, [one_line(text) for text in arms.simulations]
    left_out = ", ".join(f"{count} {_STATES.get(state, state)}" for state, count in arms.left_out.items())
    if left_out:
        notes.append(f"Trials that have not run to their end are in no row: {left_out}.")
    if rows.empty:
        return [*notes, "No trial has run to its end."]
    if devices := [name for name in dict.fromkeys(rows["device"]) if name]:
        notes.append(f"Ran on: {', '.join(devices)}.")
    splits = set(rows["split"]) if accuracies else set()
    if splits == {"validation"}:
        notes.append("Accuracy, F1 and ROC AUC are those of the validation images: nothing was tested.")
    elif len(splits) == 2:
        notes.append("† Of the validation images, not tested; the others of the test images.")
    if (rows["runs"] > 1).any():
        notes.append("±: standard error over seeds.")
    if rows["confirmed"].any():
        notes.append("Fresh: the seeds of the confirmation alone; a row that names its trial was confirmed besides.")
    if (rows["configs"] > 1).any():
        notes.append(
            "Of each strategy the config of best validation accuracy in the search, of up to "
            f"{rows['configs'].max()} that ran."
        )
    return [*notes, *_energy_notes(rows)]


def _energy_notes(rows: pd.DataFrame) -> list[str]:
    known = rows[rows["kwh"].notna()]
    if known.empty:
        return ["No energy was recorded."]
    shares = known["measured_share"]
    if shares.isna().all():
        return ["Whether the energies are measured or modelled was not recorded."]
    low, high = float(shares.min()), float(shares.max())
    if low > 1 - 5e-4:
        return ["All energies are measured."]
    if high == 0:
        return ["All energies are modelled, not measured."]
    span = (
        f"{100 * low:.0f} %" if f"{100 * low:.0f}" == f"{100 * high:.0f}" else f"{100 * low:.0f} to {100 * high:.0f} %"
    )
    return [f"Of the energies {span} is measured, the rest modelled."]


def _of_our_networks(ours: pd.DataFrame, published: list[Published]) -> list[tuple[Published, str]]:
    """The papers' rows of networks and data sets of which we have an arm that a paper has too; and the block of each.

    A data set of the same name is not enough: folders of images may hold anything.
    """
    configs = list(ours["config"])
    blocks = list(zip(ours["model"], ours["block"], [one.get("data.name") for one in configs], strict=True))
    groups: set[tuple[str, str]] = set()
    for row in published:
        if any(_is_of(config, row.config) for config in configs):
            groups.add((row.group, row.config["data.name"]))
    found = []
    for row in published:
        model, data = row.config["model.name"], row.config["data.name"]
        block = next((block for name, block, of in blocks if (name, of) == (model, data)), None)
        if (row.group, data) in groups and block is not None:
            own = next((b for c, b in zip(configs, ours["block"], strict=True) if _is_of(c, row.config)), block)
            found.append((row, own))
    return found


def _is_of(config: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether an arm's config has all that a paper's row is of."""
    return all(config.get(key) == value for key, value in wanted.items())


def _merged(ours: pd.DataFrame, found: list[tuple[Published, str]], papers: Sequence[str]) -> pd.DataFrame:
    """Each paper's row behind the last of our arms of its config; without one, at the end of its block."""
    mine = records(ours)
    placed: list[tuple[tuple[float, float], dict[str, Any]]] = [((place, -1), row) for place, row in enumerate(mine)]
    for order, (row, block) in enumerate(found):
        same = [p for p, one in enumerate(mine) if _is_of(one["config"], row.config)]
        model = row.config["model.name"]
        end = max(p for p, one in enumerate(mine) if (one["model"], one["block"]) == (model, block))
        place = max(same) if same else end + 0.5
        placed.append(((place, order), _as_row(row, block, papers)))
    return pd.DataFrame([row for _, row in sorted(placed, key=lambda one: one[0])], columns=ours.columns)


def _as_row(row: Published, block: str, papers: Sequence[str]) -> dict[str, Any]:
    count = row.config.get("data.class_count")
    numbers = {name: row.numbers[name].value if name in row.numbers else math.nan for name in (*METRICS, "saved")}
    return {
        "model": row.config["model.name"],
        "data": row.config["data.name"] + (f" ({count} classes)" if count else ""),
        "block": block,
        "others": "",
        "best": True,
        "strategy": row.name,
        "label": f"{row.name} {mark_of_paper(papers.index(row.paper))}",
        "device": "",
        "estimator": row.config["sparsity.estimator"],
        "p": row.config.get("sparsity.p0", 1.0 if row.config["sparsity.estimator"] == "dense" else math.nan),
        "runs": 1,
        "configs": 1,
        "confirmed": False,
        "split": "test",
        "config": row.config,
        "source": f"{row.paper} {row.source}",
        "printed": row.numbers,
        **numbers,
    }
