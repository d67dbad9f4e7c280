"""Images by class and split: table 2 of the feature-ranked paper."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd

from analysis.tables.cells import NOTHING
from analysis.tables.formats import Sheet
from analysis.tables.published import cite, published_classes
from analysis.tables.rows import TableInfo
from analysis.text import one_line
from analysis.trials import records
from sbp_tune.config import DataConfig, validate
from sbp_tune.errors import InputError
from sbp_tune.study.results import StudyResults

_SPLITS = ("train", "val", "test")
COLUMNS = ["data", "class", "train", "val", "test", *(f"{part}_published" for part in _SPLITS), "source"]


def data_table_info(*studies: StudyResults, published: bool = False) -> TableInfo:
    """Images of each class in the three splits, a row a class of each data set that a trial has used.

    Columns: data, class, train, val, test; of classes that a paper prints `<split>_published` and source. Counted where
    the studies' configs say that the images lie; a note tells of those that are not there.
    """
    rows, notes = [], ["Counted in the images that lie there now; files that cannot be decoded count too."]
    configs = _data_configs(studies)
    for label, config in configs.items():
        try:
            rows += _counted(label, config)
        except InputError as error:
            notes += [f"{label} cannot be counted on this machine: {one_line(problem)}" for problem in error.problems]
    if not configs:
        notes = ["No trial names a data set."]
    if published:
        rows, note = _with_published(rows, configs)
        notes.append(note)
    return TableInfo(pd.DataFrame(rows, columns=COLUMNS), tuple(notes))


def data_sheets(info: TableInfo) -> list[Sheet]:
    """A table for each data set, with the sum of all classes at its end."""
    sheets = []
    for data, rows in info.rows.groupby("data", sort=False):
        published = rows["source"].notna().any()
        header: list[tuple[str, ...]] = [("Class",), ("Train images",), ("Validation images",), ("Test images",)]
        if published:
            header = [("Class",), *(("Ours", part) for part in _SPLITS), *(("Published", part) for part in _SPLITS)]
        columns = [*_SPLITS, *(f"{part}_published" for part in _SPLITS if published)]
        cells = [[one_line(row["class"]), *(_count(row[name]) for name in columns)] for row in records(rows)]
        ours = rows[list(_SPLITS)].notna().all(axis=1).any()
        if ours:
            sums = [_count(rows[name].sum()) for name in _SPLITS]
            cells.append(["all classes", *sums, *[NOTHING] * (len(columns) - 3)])
        sheets.append(Sheet(f"Images of {data}", header, cells, rules=(len(cells) - 1,) if ours else ()))
    if not sheets:
        return [Sheet("Images by class", [("Class",)], [], notes=info.notes)]
    return [*sheets[:-1], sheets[-1]._replace(notes=info.notes)]


def _count(value: float) -> str:
    return NOTHING if np.isnan(value) else f"{value:.0f}"


def _data_configs(studies: tuple[StudyResults, ...]) -> dict[str, DataConfig]:
    """The data sections of all trials that differ in what is loaded, by a label."""
    found: dict[str, DataConfig] = {}
    seen = set()
    for study in studies:
        for config in study.configs.values():
            section = config.get("data")
            if not isinstance(section, dict) or (key := json.dumps(section, sort_keys=True)) in seen:
                continue
            seen.add(key)
            data = validate(DataConfig, section, str(study.path), "config.data")
            data = data.model_copy(update={"batch_size": 1, "augment": "none", "normalize": "standard"})
            if data in found.values():
                continue
            label = one_line(data.name) + (f" ({data.class_count} classes)" if data.class_count else "")
            same = sum(name == label or name.startswith(f"{label}, ") for name in found)
            found[f"{label}, {same + 1}" if same else label] = data
    return found


def _counted(label: str, config: DataConfig) -> list[dict[str, Any]]:
    from sbp_tune.vision.counting import count_images

    counts = count_images(config)
    parts = zip(counts.classes, counts.train, counts.val, counts.test, strict=True)
    return [{"data": label, "class": name, **dict(zip(_SPLITS, map(int, of), strict=True))} for name, *of in parts]


def _with_published(rows: list[dict[str, Any]], configs: dict[str, DataConfig]) -> tuple[list[dict[str, Any]], str]:
    """The papers' counts beside those of ours, their other classes behind them; and where they are from."""
    # A folder of images is taken for theirs where it is a choice of so many classes, as theirs is of ImageNet.
    labels = [label for label, data in configs.items() if data.name == "image_folder" and data.class_count]
    if not labels:
        return rows, "The papers print no classes of these data sets."
    sources = []
    for paper, source, classes in published_classes():
        sources.append(f"{source}, a sample of its classes: {cite(paper)}.")
        counts = {
            folder: {f"{part}_published": row[part] for part in _SPLITS} | {"source": f"{paper} {source}"}
            for folder, row in classes.items()
        }
        for label in labels:
            mine = {row["class"] for row in rows if row["data"] == label}
            rows = [{**row, **counts.get(row["class"], {})} if row["data"] == label else row for row in rows]
            rows += [
                {"data": label, "class": f"{folder} ({row['name']})", **counts[folder]}
                for folder, row in classes.items()
                if folder not in mine
            ]
    return rows, (
        f"Published, {' '.join(sources)} Most classes have 1,350 images, as many as ImageNet's training and validation "
        "images of a class together."
    )
