"""What the two papers print, as data: `published.yaml`, transcribed digit for digit."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from sbp_tune.files import read_yaml

_FILE = Path(__file__).with_name("published.yaml")
_SIZES = {"%": 0.01, "": 1.0, "kWh": 1.0, "kJ": 1 / 3600, "kg": 1.0, "g": 1e-3}


class Number(NamedTuple):
    """A number as printed, its unit (%, kWh, kJ, kg, g, h:mm:ss, or none), and its value in stored units."""

    printed: str
    unit: str
    value: float


class Published(NamedTuple):
    """One row that a paper prints, of one data set.

    source: the tables it is from; group: names the same for rows of one paper and network and table;
    config: dotted keys, all of which an arm of ours must share to stand beside it; numbers: by metric.
    """

    paper: str
    source: str
    group: str
    name: str
    config: dict[str, Any]
    numbers: dict[str, Number]


def published_rows(table: str) -> list[Published]:
    """Rows that belong into one of our tables (`for` in the file), in the papers' order.

    What a paper prints of one arm in two tables is one row.
    """
    rows: dict[str, Published] = {}
    for printed in _document()["tables"]:
        if table not in printed["for"]:
            continue
        for row in printed["rows"]:
            for data, texts in row["values"].items():
                config = {**row["config"], "data.name": data}
                numbers = {
                    metric: parsed(text, unit)
                    for (metric, unit), text in zip(printed["columns"], texts, strict=False)  # dense saves nothing
                }
                key, source = f"{printed['paper']} {sorted(config.items())}", source_of(printed)
                group = f"{printed['paper']} {config['model.name']}"
                new = Published(printed["paper"], source, group, row["name"], config, numbers)
                old = rows.get(key)
                if old is not None:
                    new = old._replace(source=f"{old.source}, {source}", numbers={**old.numbers, **numbers})
                rows[key] = new
    return list(rows.values())


def published_classes() -> list[tuple[str, str, dict[str, dict[str, Any]]]]:
    """Of each paper that prints images by class: its name, the source, and by class folder name and three counts."""
    return [
        (
            printed["paper"],
            source_of(printed),
            {
                folder: {"name": row["name"], **dict(zip(printed["columns"], map(int, row["values"]), strict=True))}
                for folder, row in printed["rows"].items()
            },
        )
        for printed in _document()["classes"]
    ]


def cite(paper: str) -> str:
    """Authors, title, where and when."""
    return str(_document()["papers"][paper]["cite"])


def footnotes(paper: str) -> list[str]:
    """What one must know before comparing with a paper's numbers."""
    return [str(line) for line in _document()["papers"][paper]["footnotes"]]


def parsed(text: str, unit: str) -> Number:
    """A printed number in stored units: fractions, seconds, kWh, kg."""
    if unit != "h:mm:ss":
        return Number(text, unit, float(text) * _SIZES[unit])
    hours, minutes, seconds = map(int, text.split(":"))
    return Number(text, unit, 3600.0 * hours + 60 * minutes + seconds)


def source_of(printed: dict[str, Any]) -> str:
    """Table and section."""
    return f"{printed['table']} (section {printed['section']})"


@lru_cache(maxsize=1)
def _document() -> dict[str, Any]:
    document: dict[str, Any] = read_yaml(_FILE)
    return document
