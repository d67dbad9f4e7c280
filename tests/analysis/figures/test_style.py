from itertools import pairwise

import pytest

from analysis.figures import style
from sbp_tune.config import plugin_names


def test_every_estimator_that_ships_has_a_mark_of_its_own():
    marks = [style.mark_of(name) for name in plugin_names("sparsity/estimators")]
    assert len({mark.symbol for mark in marks}) == len(marks)
    assert len({mark.rank for mark in marks}) == len(marks)
    assert len({(mark.color, mark.dash) for mark in marks}) == len(marks)


def test_vermillion_is_for_dense_alone():
    assert style.mark_of("dense").color == style.VERMILLION
    others = [
        style.mark_of(name) for name in (*plugin_names("sparsity/estimators"), "mine", "unknown") if name != "dense"
    ]
    assert style.VERMILLION not in {mark.color for mark in others}


def test_one_order_everywhere():
    names = ["theirs", "grid", "mine", "dense", "mask", "grid"]
    assert style.in_order(names) == ["dense", "mask", "grid", "mine", "theirs"]
    assert style.in_order([]) == []


def test_a_mark_does_not_depend_on_the_study_or_the_process():
    assert style.mark_of("my_rule") == style.Mark("#56B4E9", "hexagram", "dashdot", 50)
    assert style.mark_of("half a character: \ud800")


def test_trials_of_one_colour_differ_in_their_dashes():
    lines = style.trial_lines({4: "grid", 5: "grid", 6: "prefix", 7: "dense", 8: "dense"})
    assert lines[4]["color"] == lines[5]["color"] == lines[6]["color"]
    assert len({(line["color"], line["dash"]) for line in lines.values()}) == 5


def test_studies_of_one_name_are_told_apart(build):
    import dataclasses
    from pathlib import Path

    one, other = build.study(name="<a>"), build.study(name="b")
    assert style.study_labels([one, other]) == ["&lt;a&gt;", "b"]
    again = dataclasses.replace(one, path=Path("results/again"))
    assert style.study_labels([one, again]) == ["&lt;a&gt; (demo)", "&lt;a&gt; (again)"]


def test_values_are_short_and_gaps_stay_gaps():
    from sbp_tune.units import Axis

    assert style.drawn([1 / 3, float("nan"), float("inf")], Axis("", 10.0)) == [3.33333, None, None]


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_panels_are_below_one_another(rows):
    figure = style.new_panels(["y"] * rows, ["x"] * rows, height=200)
    assert figure.layout.height == 200 * rows + 110
    axes = [figure.layout[f"yaxis{row or ''}"] for row in ["", *range(2, rows + 1)]]
    assert all(above.domain[0] > below.domain[1] for above, below in pairwise(axes))


def test_captions_make_room_for_themselves_and_buttons():
    plain = style.caption(style.new_figure(), "One <b>line</b>.")
    assert plain.layout.title.text == "One &lt;b&gt;line&lt;/b&gt;."
    long = style.caption(style.new_figure(updatemenus=[style.buttons([("a", []), ("b", [])])]), "many words " * 12)
    assert long.layout.margin.t > plain.layout.margin.t + 44


def test_long_names_lose_their_middle():
    assert style.short("resnet18-cifar10") == "resnet18-cifar10"
    assert style.short("a" * 30 + "-first", 15) == "aaaaaaaaa…first"
    assert len(style.short("x" * 100)) == 24
