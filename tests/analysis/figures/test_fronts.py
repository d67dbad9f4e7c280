import math

import pytest

from analysis.figures import fronts_info, plot_fronts
from sbp_tune.errors import InputError


@pytest.fixture
def studies(build):
    one = build.study(build.control(0.8, 1.0), build.sparse(0.9, 2.0), build.sparse(0.7, 3.0), name="one")
    two = build.study(build.control(0.7, 3.0, co2_kg=1.0), build.control(0.6, 2.0), name="two")
    return one, two


def test_each_study_has_its_own_front_and_controls(studies):
    points = fronts_info(*studies).points
    found = {key: rows["trial"].tolist() for key, rows in points.groupby(["study", "line"])}
    assert found == {(0, "controls"): [0], (0, "front"): [0, 1], (1, "controls"): [1, 0], (1, "front"): [1, 0]}


def test_buttons_offer_what_some_study_recorded(studies):
    figure = plot_fronts(*studies)
    assert [button.label for button in figure.layout.updatemenus[0].buttons] == ["energy", "CO₂"]
    update = figure.layout.updatemenus[0].buttons[1].args[0]
    assert [len(x) for x in update["x"]] == [0, 0, 1, 1] == [len(text) for text in update["text"]]
    assert "one" in figure.data[1].text[0] and "estimator" in figure.data[1].text[0]


def test_studies_without_points_and_without_a_metric(build):
    empty = build.study(build.sparse(math.nan, 1.0), name="<b>")
    assert plot_fronts(empty).layout.meta["nothing"] and fronts_info(empty).points.empty
    with pytest.raises(InputError, match="not a metric"):
        fronts_info(empty, x="price")
