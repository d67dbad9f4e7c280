import math

import pandas as pd
import pytest

from analysis.figures import hypervolume_info, plot_hypervolume
from sbp_tune.errors import InputError

NAN = math.nan


@pytest.fixture
def study(build):
    return build.study(
        build.sparse(0.5, 1.0),
        build.sparse(0.1, 0.5, state="stopped"),  # its energy counts, its point does not
        build.sparse(0.7, 2.0),
        build.sparse(0.6, 3.0),  # dominated
        build.trial(state="failed", kwh=0.25),
        build.trial(state="failed"),  # of unknown energy
    )


def test_hypervolume_by_hand(study):
    info = hypervolume_info(study, reference=(0.0, 4.0))
    assert (info.reference, info.ideal) == ((0.0, 4.0), (0.7, 1.0))
    assert info.history["trials"].tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert info.history["kwh"].tolist() == [0, 1, 1.5, 3.5, 6.5, 6.75, 6.75]
    # 0.5 x 3, then 0.2 x 2 more
    assert info.history["hypervolume"].tolist() == pytest.approx([0, 1.5, 1.5, 1.9, 1.9, 1.9, 1.9])
    assert info.history["share"].tolist()[-1] == pytest.approx(1.9 / (0.7 * 3))
    assert info.unrecorded == 1


def test_default_reference_is_fixed_a_tenth_beyond_the_worst(study):
    info = hypervolume_info(study)
    assert info.reference == pytest.approx((0.5 - 0.02, 3.0 + 0.2))
    assert info.history["hypervolume"].is_monotonic_increasing


def test_several_studies_share_their_reference(build):
    one, other = build.study(build.sparse(0.5, 1.0)), build.study(build.sparse(0.9, 2.0), name="other")
    info = hypervolume_info(one, other)
    assert info.reference == pytest.approx((0.46, 2.1))
    assert info.ideal == (0.9, 1.0)
    assert info.history["study"].tolist() == [0, 0, 1, 1]
    assert len(plot_hypervolume(one, other).data) == 2


def test_trials_count_in_the_order_in_which_they_ended(build):
    study = build.study(
        build.sparse(0.5, 1.0), build.trial(state="running", kwh=5.0), build.sparse(0.7, 2.0), build.sparse(0.6, 4.0)
    )
    times = pd.to_datetime(["2026-01-01 12:00", None, "2026-01-01 10:00", "2026-01-01 11:00"])
    study.trials["ended"] = times
    assert hypervolume_info(study).history["trial"].tolist()[1:] == [2, 3, 0, 1]
    assert hypervolume_info(study).history["kwh"].tolist() == [0, 2, 6, 7, 12]


def test_one_trial_none_and_ties(build):
    for trials in ([], [build.trial(state="failed")], [build.sparse(0.5, NAN)]):
        info = hypervolume_info(build.study(*trials))
        assert (info.history["share"] == 0).all() and len(info.history) == len(trials) + 1
    assert hypervolume_info(build.study(build.sparse(0.5, 1.0))).history["share"].tolist() == pytest.approx([0, 1])
    twice = hypervolume_info(build.study(build.sparse(0.5, 1.0), build.sparse(0.5, 1.0)))
    assert twice.history["share"].tolist() == pytest.approx([0, 1, 1])


def test_three_objectives(build):
    objectives = {"val_accuracy": "max", "kwh": "min", "tflop": "min"}
    study = build.study(build.sparse(0.5, 1.0, tflop=1.0), objectives=objectives)
    info = hypervolume_info(study, reference=(0.0, 2.0, 3.0))
    assert info.history["hypervolume"].tolist() == pytest.approx([0, 0.5 * 1 * 2])
    with pytest.raises(InputError, match="same objectives; found demo: val_accuracy, kwh, tflop; two: val_accuracy"):
        hypervolume_info(study, build.study(name="two"))


def test_the_figure_says_its_reference_and_has_both_axes(study):
    figure = plot_hypervolume(study, reference=(0.0, 4.0))
    assert "val_accuracy 0.00 %, kwh 4.00 kWh" in figure.layout.title.text.replace("<br>", " ")
    assert "counted as none: 1" in figure.layout.title.text.replace("<br>", " ")
    kwh, trials = figure.layout.updatemenus[0].buttons
    assert kwh.args[0]["x"] == [list(figure.data[0].x)]
    assert trials.args[0]["x"] == [[0, 1, 2, 3, 4, 5, 6]]
