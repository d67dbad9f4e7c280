"""How busy the machines were while a search ran, by its ledger."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from analysis.figures import style
from analysis.text import escaped
from sbp_tune.energy.ledger import Damage, read_ledger
from sbp_tune.energy.records import Gap, Inventory, Record, Snapshot
from sbp_tune.study.ledger import ledger_folder
from sbp_tune.study.results import StudyResults

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

PANELS = {
    "gpu_busy": "GPU busy (%)",
    "gpu_w": "GPU power (W)",
    "cpu_busy": "CPU busy (%)",
    "ram": "Memory used (%)",
}
POINTS = 800
"""A line has about so many points at most: more cannot be seen, and a day has 86,400 seconds."""


_LEAST_S = 0.9
"""The kernel counts CPU time in steps of 10 ms: two snapshots at once, as where a trial begins, tell nothing."""


class UsageInfo(NamedTuple):
    """usage: node, device (GPU's UUID, or empty), quantity (a key of PANELS), line (changes where nobody metered, so
    that no line is drawn across), start and time (Unix s, from and to), value: the mean from start to time;
    gpu_busy, cpu_busy and ram as fractions of the whole device, cores or memory, gpu_w in W. gpu_busy is the time
    with a kernel of some trial. damage: lines of the ledger that cannot be read.
    """

    usage: pd.DataFrame
    damage: int


def usage_info(study: StudyResults) -> UsageInfo:
    """Usage over time of every node that metered a study in any state; empty without a ledger.

    What could not be read has no rows. Means are of the whole time between two points, however many snapshots
    lie between them.
    """
    damage: list[Damage] = []
    records: dict[str, list[Record]] = {}
    node = ""
    for record in read_ledger(ledger_folder(study.path), damage):
        if isinstance(record, Inventory):
            node = record.node
        records.setdefault(node, []).append(record)
    rows = [row for name, of_node in records.items() for row in _node(name, of_node)]
    return UsageInfo(pd.DataFrame(rows, columns=_COLUMNS), len(damage))


def plot_usage(study: StudyResults) -> Figure:
    """A panel for GPUs, their power, cores and memory each, where something was read; a line a device."""
    return draw_usage(usage_info(study))


def draw_usage(info: UsageInfo) -> Figure:
    """`plot_usage` of data that is there already."""
    quantities = [name for name in PANELS if name in set(info.usage["quantity"])]
    if not quantities:
        return style.say(style.new_figure(), "No energy ledger: nothing metered this study.")
    since, last = info.usage["start"].min(), info.usage["time"].max()
    unit, seconds = next(
        (unit for unit in (("h", 3600), ("min", 60)) if last - since >= 2 * unit[1]), ("s", 1)
    )  # fmt: skip
    titles = [PANELS[name] for name in quantities]
    figure = style.new_panels(titles, [*[""] * (len(titles) - 1), f"Time ({unit})"], height=190)
    devices = list(dict.fromkeys(zip(info.usage["node"], info.usage["device"], strict=True)))
    names, shown = _names(devices), set()
    for row, quantity in enumerate(quantities, start=1):
        factor = 1.0 if quantity == "gpu_w" else 100.0
        of_quantity = info.usage[info.usage["quantity"] == quantity]
        for place, device in enumerate(devices):
            rows = of_quantity[(of_quantity["node"] == device[0]) & (of_quantity["device"] == device[1])]
            if rows.empty:
                continue
            x, y = _steps(rows, since, seconds, factor)
            figure.add_scatter(
                x=x, y=y, mode="lines", line={**style.line_of(place), "width": 1.5}, name=names[device],
                legendgroup=names[device], showlegend=device not in shown, connectgaps=False,
                hovertemplate=f"%{{y:.4~g}} at %{{x:.4~g}} {unit}<extra>{names[device]}</extra>", row=row, col=1,
            )  # fmt: skip
            shown.add(device)
    figure.update_yaxes(rangemode="tozero")
    return figure


_Line = list[float | None]
_COLUMNS = ["node", "device", "quantity", "line", "start", "time", "value"]


def _node(name: str, records: list[Record]) -> Iterator[tuple[str, str, str, int, float, float, float]]:
    stride = max(1, sum(isinstance(record, Snapshot) for record in records) // POINTS)
    inventory: Inventory | None = None
    line = 0
    snapshots: list[Snapshot] = []
    for record in [*records, None]:
        restarted = isinstance(record, Inventory) and (
            inventory is None or (record.boot, record.time) != (inventory.boot, inventory.time)
        )
        if record is None or restarted or isinstance(record, Gap):
            if inventory is not None:
                yield from ((name, *row[:2], line, *row[2:]) for row in _line(inventory, snapshots, stride))
            line, snapshots = line + 1, []
        if isinstance(record, Inventory):
            inventory = record
        elif isinstance(record, Snapshot):
            snapshots.append(record)


def _line(
    inventory: Inventory, snapshots: list[Snapshot], stride: int
) -> Iterator[tuple[str, str, float, float, float]]:
    """Device, quantity, start, time and value between every so many snapshots that follow one another."""
    places = _places([one.time for one in snapshots], stride)
    for first, last in pairwise(places):
        before, after = snapshots[first], snapshots[last]
        seconds = after.time - before.time
        if seconds <= 0:
            continue
        between = snapshots[first : last + 1]
        edges = (before.wall, after.wall)
        yield "", "cpu_busy", *edges, (after.busy_cpu_s - before.busy_cpu_s) / seconds / inventory.cpus
        used = sum(one.used_gb for one in between) / len(between)
        yield "", "ram", *edges, used / inventory.ram_gb
        for uuid in inventory.gpus:
            joules = (before.gpu_j.get(uuid), after.gpu_j.get(uuid))
            if joules[0] is not None and joules[1] is not None:
                yield uuid, "gpu_w", *edges, (joules[1] - joules[0]) / seconds
            busy = _kernel_seconds(between, uuid)
            if busy is not None:
                yield uuid, "gpu_busy", *edges, min(1.0, busy / seconds)


def _places(times: list[float], stride: int) -> list[int]:
    """Every so many snapshots, but none sooner than _LEAST_S after another; the first and the last."""
    places: list[int] = []
    for place, time in enumerate(times):
        if not places or (place - places[-1] >= stride and time - times[places[-1]] >= _LEAST_S):
            places.append(place)
    if places and places[-1] != len(times) - 1:
        if len(places) > 1 and times[-1] - times[places[-1]] < _LEAST_S:
            places.pop()
        places.append(len(times) - 1)
    return places


def _kernel_seconds(snapshots: list[Snapshot], uuid: str) -> float | None:
    """Time with a kernel on a GPU, summed over the leases that held it; None if none did, or it cannot be told."""
    seconds, held = 0.0, False
    for before, after in pairwise(snapshots):
        for lease, use in after.leases.items():
            if uuid not in use.gpu_busy_s:
                continue
            earlier = before.leases[lease].gpu_busy_s.get(uuid) if lease in before.leases else None
            now = use.gpu_busy_s[uuid]
            if now is None:
                return None
            held = True
            seconds += max(0.0, now - earlier) if earlier is not None else 0.0
    return seconds if held else None


def _names(devices: list[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Nodes by name, GPUs by node and place in the order of their UUIDs."""
    names = {}
    for node, uuid in devices:
        of_node = sorted(other for one, other in devices if one == node and other)
        name = style.short(node)  # one without a name of its own has a hash of 56 characters
        names[(node, uuid)] = escaped(f"{name} GPU {of_node.index(uuid)}" if uuid else name)
    return names


def _steps(
    rows: pd.DataFrame, since: float, unit: float, factor: float
) -> tuple[list[float | None], list[float | None]]:
    """Means as steps, from their start to their end, with gaps where nobody metered."""
    x: _Line = []
    y: _Line = []
    line, until = None, None
    for start, time, value, of in zip(rows["start"], rows["time"], rows["value"], rows["line"], strict=True):
        if line is not None and (of != line or start != until):
            x.append(None)
            y.append(None)
        x += [round((start - since) / unit, 5), round((time - since) / unit, 5)]
        y += [float(f"{value * factor:.5g}")] * 2
        line, until = of, time
    return x, y
