"""Cells as text, Markdown, LaTeX and CSV, and numbers as cells."""

import io
import math
import re

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.tables.cells import UNITS, amount, as_printed, clock, fixed, percent, unit_for
from analysis.tables.formats import Sheet, as_csv, as_latex, as_markdown, as_text, latex_escaped, markdown_escaped
from analysis.tables.published import parsed

NAN = math.nan
SHEET = Sheet(
    "Energy of a & b",
    [("Strategy",), ("cifar10", "Energy (kJ)"), ("cifar10", "CO₂ (g)"), ("Runs",)],
    [["<b>mask_1</b> | 50 %", "92.4 ± 0.1", "8.08", "3"], ["  energy saved", "–", "–", ""]],
    notes=("All energies are modelled_here.",),
)


def test_latex_is_escaped_and_spans_its_headers():
    text = as_latex(SHEET)
    assert r"\caption{Energy of a \& b}" in text
    assert (
        r"\textless{}b\textgreater{}mask\_1\textless{}/b\textgreater{} | 50 \% & 92.4 $\pm$ 0.1 & 8.08 & 3 \\" in text
    )
    assert r"\multicolumn{2}{c}{cifar10}" in text and r"Energy (kJ) & CO\textsubscript{2} (g)" in text
    assert text.startswith(r"\begin{table}") and text.endswith(r"\end{table}") and r"\toprule" in text
    assert "modelled\\_here" in text and "–" not in text


@given(st.text())
def test_no_character_means_anything_to_latex(text):
    bare = re.sub(r"\\[&%$#_{}]|\\text\w+(\{\})?|\{2\}|\{\$\\dagger\$\}|\$\\(pm|times)\$", "", latex_escaped(text))
    assert not set(bare) & set("\\{}$&#_%~^<>")


def test_markdown_is_one_table_whose_markup_is_text():
    lines = as_markdown(SHEET).splitlines()
    assert lines[0] == r"**Energy of a &amp; b**"
    assert lines[2] == "| Strategy | cifar10: Energy (kJ) | cifar10: CO₂ (g) | Runs |"
    assert lines[3] == "| :-- | --: | --: | --: |"
    assert lines[4] == r"| \<b\>mask_1\</b\> \| 50 % | 92.4 ± 0.1 | 8.08 | 3 |"
    assert lines[-1] == "All energies are modelled_here."


@given(st.text(st.characters(exclude_categories=["C", "Z"])))
def test_a_cell_of_markdown_stays_a_cell(text):
    escaped = markdown_escaped(text)
    assert not re.search(r"(?<!\\)(\\\\)*[|`*<>]", escaped)


def test_text_has_every_cell_and_the_upper_title_once():
    text = as_text(SHEET)
    assert text.count("cifar10") == 1 and "<b>mask_1</b> | 50 %" in text and "8.08" in text
    assert text.splitlines()[0] == "Energy of a & b" and text.endswith("All energies are modelled_here.")
    assert all(line == line.rstrip() for line in text.splitlines())
    assert max(map(len, as_text(SHEET, 60).splitlines())) <= 60


def test_a_table_without_rows_prints_in_every_format():
    empty = Sheet("Nothing", [("Strategy",)], [], notes=("No trial has run to its end.",))
    for render in (as_text, as_markdown, as_latex):
        assert "No trial has run to its end." in render(empty)


def test_csv_keeps_every_digit_and_leaves_unknowns_empty():
    table = pd.DataFrame({"a": ['x, "y"', "z"], "kwh": [1 / 3, NAN]})
    again = pd.read_csv(io.StringIO(as_csv(table)))
    pd.testing.assert_frame_equal(again, table, check_exact=True)
    assert as_csv(table).endswith("\nz,")


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (percent(0.942), "94.20"),
        (percent(0.942, 0.0011), "94.20 ± 0.11"),
        (percent(NAN), "–"),
        (fixed(0.98184), "0.9818"),
        (fixed(0.98184, 0.00036), "0.9818 ± 0.0004"),
        (clock(7299), "2:01:39"),
        (clock(7299.4, 31), "2:01:39 ± 31 s"),
        (clock(59.996), "0:01:00.00"),
        (clock(3.412, 0.024), "0:00:03.41 ± 0.024 s"),
        (clock(NAN), "–"),
        (amount(0.67, NAN, ("kWh", 1.0)), "0.6700"),
        (amount(0.67, 0.013, ("kWh", 1.0)), "0.670 ± 0.013"),
        (amount(92.4 / 3600, NAN, UNITS["kj"][0]), "92.40"),
        (amount(1234.5, 0.0, ("kWh", 1.0)), "1234 ± 0"),
        (amount(12345.6, NAN, ("kWh", 1.0)), "12346"),
        (amount(1e-9, NAN, ("kWh", 1.0)), "1.000e-09"),
        (amount(0.0, NAN, ("kWh", 1.0)), "0"),
        (amount(NAN, NAN, ("kWh", 1.0)), "–"),
        (as_printed(parsed("70.60", "%")), "70.60"),
        (as_printed(parsed("92.4", "kJ"), UNITS["kj"][0]), "92.4"),
        (as_printed(parsed("92.4", "kJ"), UNITS["kwh"][0]), "0.02567"),
        (as_printed(None), "–"),
    ],
)
def test_cells(cell, text):
    assert cell == text


def test_the_unit_is_the_first_that_the_largest_value_fills():
    assert unit_for(UNITS["kwh"], [0.5, NAN])[0] == "kWh"
    assert unit_for(UNITS["kwh"], [0.002, 4e-6])[0] == "Wh"
    assert unit_for(UNITS["kwh"], [4e-6])[0] == "mWh"
    assert unit_for(UNITS["kwh"], [NAN])[0] == unit_for(UNITS["kwh"], [])[0] == "kWh"
