"""Where all the energy of a search went: into trials that count, into those that do not, and beside the trials."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from analysis.bill import BillInfo, bill_info
from analysis.bill_tables import LINE_NAMES
from analysis.figures import style
from analysis.trials import metric
from sbp_tune.errors import InputError, SbpTuneError
from sbp_tune.study.results import StudyResults
from sbp_tune.units import axis_of, readable_energy

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_TRIALS = {
    "complete": "trained to the end",
    "stopped": "stopped early",
    "failed": "failed",
    "running": "running",
    "interrupted": "interrupted",
}
_WASTED = "repeated after crashes"
_SOURCES = ("measured", "modelled", "unknown")


class MachineBillInfo(NamedTuple):
    """kWh by where it went [lines] and by source: measured, modelled, unknown (recorded without a source).

    lines: those that used energy: trials by how they ended, without what their attempts wasted; `repeated after
    crashes`; idle hardware, search driver, other processes. overhead: whether these last three are known, from a
    ledger; then all lines sum to the machines. problem: why they are not, a line.
    """

    lines: pd.DataFrame
    overhead: bool
    problem: str | None


def machine_bill_info(study: StudyResults) -> MachineBillInfo:
    """The bill of a study in any state, by its ledger, or by its trials alone where it has none.

    Wasted energy is taken to be measured in the same part as the rest of its trial. Trials whose energy is not
    known are in no line.
    """
    try:
        bill = bill_info(study)
    except SbpTuneError as error:
        reason = "No meter ran beside the trials" if isinstance(error, InputError) else str(error).splitlines()[0]
        return MachineBillInfo(_summed(_recorded(study)), False, reason)
    return billed_info(bill)


def billed_info(bill: BillInfo) -> MachineBillInfo:
    """`machine_bill_info` of a bill by a ledger."""
    lines = [(LINE_NAMES[line.line], line.measured_kwh, line.modelled_kwh, 0.0) for line in bill.lines[1:]]
    return MachineBillInfo(_summed([*_billed(bill), *lines]), True, None)


def plot_machine_bill(study: StudyResults) -> Figure:
    """Horizontal bars by where the energy went, stacked into measured and modelled."""
    return draw_machine_bill(machine_bill_info(study))


def draw_machine_bill(info: MachineBillInfo) -> Figure:
    """`plot_machine_bill` of data that is there already."""
    totals = info.lines.sum(axis=1)
    axis = axis_of("kwh", totals)
    figure = style.new_figure(axis.title, barmode="stack", showlegend=True, height=150 + 42 * len(info.lines))
    labels = [f"{name}: {readable_energy(total)}" for name, total in totals.items()]
    for source in _SOURCES:
        values = info.lines[source]
        if (values > 0).any():
            figure.add_bar(
                x=style.drawn(values, axis), y=labels, orientation="h", name=source,
                marker_color=style.SOURCE_COLORS[source],
                text=[readable_energy(value) for value in values], textposition="none",
                hovertemplate="%{y}<br>%{fullData.name}: %{text}<extra></extra>",
            )  # fmt: skip
    figure.update_yaxes(autorange="reversed")
    if info.lines.empty:
        return style.say(figure, "No energy was recorded.")
    if not info.overhead:
        style.caption(figure, f"{info.problem}: idle machines, driver and other processes are not in these bars.")
    return figure


def _billed(bill: BillInfo) -> list[tuple[str, float, float, float]]:
    lines: list[tuple[str, float, float, float]] = []
    for trial in bill.trials:
        known = trial.measured_kwh + trial.modelled_kwh
        wasted = min(1.0, (trial.kwh_wasted or 0.0) / known) if known else 0.0
        measured, modelled = trial.measured_kwh, trial.modelled_kwh
        lines.append(
            (_TRIALS.get(trial.state, "not in the study"), (1 - wasted) * measured, (1 - wasted) * modelled, 0.0)
        )
        lines.append((_WASTED, wasted * measured, wasted * modelled, 0.0))
    return lines


def _recorded(study: StudyResults) -> list[tuple[str, float, float, float]]:
    lines = []
    columns = [metric(study, name) for name in ("kwh", "kwh_wasted", "kwh_measured_share")]
    for state, kwh, wasted, share in zip(study.trials["state"], *columns, strict=True):
        if not kwh > 0:
            continue
        waste = min(1.0, wasted / kwh) if wasted > 0 else 0.0
        split = (0.0, 0.0, 1.0) if math.isnan(share) else (share, 1 - share, 0.0)
        lines.append((_TRIALS[state], *((1 - waste) * kwh * part for part in split)))
        lines.append((_WASTED, *(waste * kwh * part for part in split)))
    return lines


def _summed(lines: list[tuple[str, float, float, float]]) -> pd.DataFrame:
    frame = pd.DataFrame(lines, columns=["line", *_SOURCES]).groupby("line").sum().astype(float)
    order = [*_TRIALS.values(), "not in the study", _WASTED, *LINE_NAMES.values()]
    frame = frame.reindex([name for name in order if name in frame.index])
    return frame[frame.sum(axis=1) > 0]
