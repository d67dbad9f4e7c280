"""A table of cells as text, Markdown or LaTeX, and its numbers as CSV."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import NamedTuple

import pandas as pd

_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"±": r"$\pm$", "–": "--", "†": r"\textsuperscript{$\dagger$}", "₂": r"\textsubscript{2}", "×": r"$\times$"},
    **{"<": r"\textless{}", ">": r"\textgreater{}"},
}
_MARKDOWN = re.compile(r"[\\`*\[\]<>|~#]|(?<!\w)_|_(?!\w)")


class Sheet(NamedTuple):
    """One table as it is printed.

    header: for each column its title, or two, the upper one spanning its neighbours of the same name; cells: texts
    [rows, columns]; rule: rows above which a line is drawn; labels: how many columns at the left are words; notes:
    what must be said with it.
    """

    title: str
    header: Sequence[tuple[str, ...]]
    cells: list[list[str]]
    labels: int = 1
    rules: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()


def as_text(sheet: Sheet, width: int = 1000) -> str:
    """For a terminal of so many columns."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for place, titles in enumerate(sheet.header):
        is_word = place < sheet.labels
        title = Text("\n".join(_shown_titles(sheet, place, titles)))
        table.add_column(title, justify="left" if is_word else "right", overflow="fold", no_wrap=not is_word)
    for place, row in enumerate(sheet.cells):
        if place in sheet.rules:
            table.add_section()
        table.add_row(*map(Text, row))
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(Text(sheet.title))
    console.print(table)
    for note in sheet.notes:
        console.print(Text(note), soft_wrap=True)
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


def as_markdown(sheet: Sheet) -> str:
    """A table of GitHub's Markdown; markup in a cell stays text."""
    titles = [": ".join(part for part in titles if part) for titles in sheet.header]
    rows = [titles, [":--" if place < sheet.labels else "--:" for place in range(len(titles))], *sheet.cells]
    lines = [
        f"| {' | '.join(cell if place == 1 else markdown_escaped(cell) for cell in row)} |"
        for place, row in enumerate(rows)
    ]
    notes = [line for note in sheet.notes for line in ("", markdown_escaped(note))]
    return "\n".join([f"**{markdown_escaped(sheet.title)}**", "", *lines, *notes])


def as_latex(sheet: Sheet) -> str:
    """A table environment for the package booktabs; special characters are escaped."""
    columns: pd.Index = pd.Index([latex_escaped(titles[0]) for titles in sheet.header])
    if any(len(titles) > 1 for titles in sheet.header):
        padded = [(*titles, "")[:2] if len(titles) == 2 else ("", titles[0]) for titles in sheet.header]
        columns = pd.MultiIndex.from_tuples([tuple(map(latex_escaped, titles)) for titles in padded])
    cells = [[latex_escaped(cell) for cell in row] for row in sheet.cells]
    body = pd.DataFrame(cells, dtype=object).reindex(columns=range(len(sheet.header)))
    body.columns = columns
    alignment = "l" * sheet.labels + "r" * (len(sheet.header) - sheet.labels)
    tabular = body.style.hide(axis="index").to_latex(hrules=True, column_format=alignment, multicol_align="c")
    notes = [rf"\par\footnotesize {latex_escaped(note)}" for note in sheet.notes]
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{latex_escaped(sheet.title)}}}", tabular.rstrip(), *notes]
    return "\n".join([*lines, r"\end{table}"])


def as_csv(numbers: pd.DataFrame) -> str:
    """Unrounded numbers in stored units (fractions, seconds, kWh, kg), an empty field for what is not known."""
    return numbers.to_csv(index=False, lineterminator="\n").rstrip("\n")


FORMATS: dict[str, Callable[[Sheet], str]] = {"text": as_text, "markdown": as_markdown, "latex": as_latex}


def latex_escaped(text: str) -> str:
    """Text in which no character means anything to LaTeX."""
    return "".join(_LATEX.get(character, character) for character in text)


def markdown_escaped(text: str) -> str:
    """Text in which no character means anything to Markdown or HTML."""
    return _MARKDOWN.sub(lambda found: f"\\{found[0]}", text.replace("&", "&amp;"))


def _shown_titles(sheet: Sheet, place: int, titles: Sequence[str]) -> Sequence[str]:
    """An upper title above the first of its columns alone."""
    upper = [len(list(same)) for _, same in groupby(sheet.header, key=lambda one: one[0] if len(one) == 2 else one)]
    starts = {sum(upper[:index]) for index in range(len(upper))}
    if len(titles) == 1:
        return ["", *titles] if any(len(one) == 2 for one in sheet.header) else titles
    return titles if place in starts else ["", titles[1]]
