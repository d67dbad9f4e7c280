import math

import pytest

from analysis.figures import attainment_info, plot_attainment
from sbp_tune.errors import InputError


def surface(info, level):
    rows = info.surfaces[info.surfaces["level"] == level]
    return list(zip(rows["x"], rows["y"], strict=True))


@pytest.fixture
def studies(build):
    return [
        build.study(build.sparse(0.5, 1.0), build.sparse(0.9, 3.0), build.sparse(0.99, 0.1, state="stopped")),
        build.study(build.sparse(0.6, 2.0), build.sparse(0.1, 9.0)),
        build.study(build.sparse(0.7, 4.0), build.sparse(math.nan, 1.0)),
    ]


def test_surfaces_by_hand(studies):
    info = attainment_info(studies)
    assert (info.studies, info.directions) == (3, ("min", "max"))
    assert surface(info, 1) == [(1.0, 0.5), (2.0, 0.6), (3.0, 0.9)]
    # two of three: 0.5 at 2 (first and second), 0.6 at 3, 0.7 at 4 (first and third)
    assert surface(info, 2) == [(2.0, 0.5), (3.0, 0.6), (4.0, 0.7)]
    assert surface(info, 3) == [(4.0, 0.6)]


def test_a_study_alone_is_its_own_front(build):
    info = attainment_info([build.study(build.sparse(0.5, 1.0), build.sparse(0.5, 1.0), build.sparse(0.4, 2.0))])
    assert (info.studies, surface(info, 1)) == (1, [(1.0, 0.5)])


def test_a_study_without_a_complete_trial_is_not_counted(build, studies):
    nothing = [build.study(), build.study(build.trial(state="running", kwh=1.0, val_accuracy=1.0))]
    assert attainment_info([*studies, *nothing]).studies == 3
    assert attainment_info(nothing).surfaces.empty
    assert attainment_info([]).surfaces.empty
    assert plot_attainment(nothing).layout.annotations


def test_levels(studies):
    assert attainment_info(studies, levels=[3]).surfaces["level"].unique().tolist() == [3]
    with pytest.raises(InputError, match="levels: found 4; allowed: 1 to 3"):
        attainment_info(studies, levels=[1, 4])


@pytest.mark.parametrize("count", range(1, 12))
def test_every_number_of_studies_has_every_level(build, count):
    studies = [build.study(build.sparse(0.5 + place / 100, 1.0 + place)) for place in range(count)]
    info = attainment_info(studies, levels=range(1, count + 1))
    assert sorted(info.surfaces["level"].unique()) == list(range(1, count + 1))


def test_other_metrics_and_the_figure(studies, build):
    study = build.study(build.sparse(0.5, 1.0, train_time_s=10.0), build.sparse(0.9, 1.0, train_time_s=30.0))
    assert surface(attainment_info([study], x="train_time_s"), 1) == [(10.0, 0.5), (30.0, 0.9)]
    assert [trace.name for trace in plot_attainment(studies).data] == ["1 of 3", "2 of 3", "3 of 3 studies"]
