"""Energy of each group of trials, by component."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analysis.energy_bill import COMPONENTS, energy_bill_info
from analysis.figures import style
from sbp_tune.study.results import StudyResults
from sbp_tune.units import axis_of, readable_energy

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def plot_energy_bill(study: StudyResults) -> Figure:
    """Energy of each group of trials as stacked horizontal bars by component, in a readable unit."""
    info = energy_bill_info(study)
    axis = axis_of("kwh", info.groups["kwh"])
    labels = [f"{name} ({row['trials']:.0f})" for name, row in info.groups.iterrows()]
    figure = style.new_figure(axis.title, barmode="stack", height=130 + 45 * len(info.groups))
    for component, row in info.components.iterrows():
        values = info.groups[component]
        figure.add_bar(
            x=style.drawn(values, axis), y=labels, orientation="h",
            name=f"{COMPONENTS[str(component)]}, {row['source']}",
            marker_color=style.COMPONENT_COLORS[str(component)],
            text=[readable_energy(value) for value in values], textposition="none",
            hovertemplate="%{y}<br>%{fullData.name}: %{text}<extra></extra>",
        )  # fmt: skip
    figure.update_yaxes(autorange="reversed")  # groups from the top, in the order of the table
    return style.say(figure, "No energy was recorded.") if info.components.empty else figure
