import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.pareto import front_mask, hypervolume, knee, study_hypervolume, trial_front
from sbp_tune.errors import InputError

NAN = math.nan
BOTH = ["max", "min"]

# few distinct values, so that ties, duplicates and NaN are the rule
coordinates = st.sampled_from([0.0, 1.0, 2.0, 3.0, NAN])
objectives = st.integers(1, 4).flatmap(
    lambda m: st.tuples(
        st.lists(st.lists(coordinates, min_size=m, max_size=m), max_size=12),
        st.lists(st.sampled_from(BOTH), min_size=m, max_size=m),
    )
)


def dominates(a, b, directions):
    signs = [1 if direction == "max" else -1 for direction in directions]
    gains = [sign * (x - y) for sign, x, y in zip(signs, a, b, strict=True)]
    return not any(map(math.isnan, a)) and all(gain >= 0 for gain in gains) and any(gain > 0 for gain in gains)


@given(objectives)
def test_front_is_what_no_other_point_dominates(case):
    points, directions = case
    expected = [
        not any(map(math.isnan, point)) and not any(dominates(other, point, directions) for other in points)
        for point in points
    ]
    assert front_mask(points, directions).tolist() == expected


@given(objectives)
def test_hypervolume_counts_the_unit_cells_that_points_dominate(case):
    points, directions = case
    worst = [-1.0 if direction == "max" else 4.0 for direction in directions]
    inward = [1 if direction == "max" else -1 for direction in directions]
    cells = 0
    for steps in itertools.product(range(5), repeat=len(directions)):
        inner_corner = [w + sign * (step + 1) for w, sign, step in zip(worst, inward, steps, strict=True)]
        cells += any(
            all(sign * (x - corner) >= 0 for sign, x, corner in zip(inward, point, inner_corner, strict=True))
            for point in points
        )
    assert hypervolume(points, directions, worst) == pytest.approx(cells)


def test_duplicates_on_the_front_are_all_kept():
    assert front_mask([[0.9, 1], [0.9, 1], [0.9, 2]], BOTH).tolist() == [True, True, False]


@pytest.mark.parametrize("values", [[], np.zeros((0, 2)), [[NAN, 1.0], [0.5, NAN]]])
def test_nothing_comparable_gives_an_empty_front_and_no_volume(values):
    assert not front_mask(values, BOTH).any()
    assert hypervolume(values, BOTH, [0, 1]) == 0


def test_hypervolume_of_one_point_is_its_box():
    assert hypervolume([[0.9, 2.0]], BOTH, reference=[0.5, 5.0]) == pytest.approx(0.4 * 3.0)


def test_points_no_better_than_the_reference_add_nothing():
    assert hypervolume([[0.4, 2.0], [0.9, 6.0]], BOTH, reference=[0.5, 5.0]) == 0


T = np.linspace(0, 1, 20_001)
ORACLES = {  # two objectives to minimise: a true front, and the area in [0, 1.1]^2 that nothing dominates
    "ZDT1": (np.column_stack([T, 1 - np.sqrt(T)]), 1 / 3),  # Zitzler, Deb and Thiele 2000
    "ZDT2": (np.column_stack([T, 1 - T**2]), 2 / 3),
    "DTLZ1": (np.column_stack([T / 2, (1 - T) / 2]), 1 / 8),  # Deb, Thiele, Laumanns and Zitzler 2002
    "DTLZ2": (np.column_stack([np.cos(T * math.pi / 2), np.sin(T * math.pi / 2)]), math.pi / 4),
}


@pytest.mark.parametrize("name", ORACLES)
def test_hypervolume_of_a_front_that_is_known_exactly(name):
    front, beyond = ORACLES[name]
    assert hypervolume(front, ["min", "min"], [1.1, 1.1]) == pytest.approx(1.21 - beyond, abs=2e-4)


@pytest.mark.parametrize("name", ORACLES)
def test_a_known_front_is_found_among_what_it_dominates(name):
    front, _ = ORACLES[name]
    points = np.vstack([front[::100] + 0.01, front[::100]])
    found = front_mask(points, ["min", "min"])
    assert not found[: len(points) // 2].any() and found[len(points) // 2 :].all()


def test_hypervolume_of_a_sphere_in_three_objectives():
    """DTLZ2: an eighth of the unit ball is beyond its front."""
    a, b = np.meshgrid(np.linspace(0, math.pi / 2, 80), np.linspace(0, math.pi / 2, 80))
    front = np.column_stack([(np.cos(a) * np.cos(b)).ravel(), (np.cos(a) * np.sin(b)).ravel(), np.sin(a).ravel()])
    found = hypervolume(front, ["min"] * 3, [1.1] * 3)
    assert 1.331 - math.pi / 6 - 0.03 < found < 1.331 - math.pi / 6


@pytest.mark.parametrize(
    ("values", "directions", "message"),
    [
        ([[1.0, 2.0]], ["max", "up"], "'max' or 'min'"),
        ([[1.0, 2.0]], [], "'max' or 'min'"),
        ([[1.0, 2.0]], ["max"], "1 objectives"),
        ([1.0, 2.0], BOTH, "shape"),
    ],
)
def test_misfits_are_named(values, directions, message):
    with pytest.raises(InputError, match=message):
        front_mask(values, directions)


@pytest.mark.parametrize("reference", [[1.0], [1.0, NAN], 3.0])
def test_a_reference_has_one_number_per_objective(reference):
    with pytest.raises(InputError, match="2 numbers"):
        hypervolume([[1.0, 2.0]], BOTH, reference)


def test_knee_is_the_largest_bulge():
    # scaled to [0, 1], 1 best: (0, 1), (0.8, 0.9), (0.9, 0.5), (1, 0)
    assert knee([[0.5, 0], [0.9, 1], [0.95, 5], [1.0, 10]], BOTH) == 1


def test_knee_does_not_depend_on_units_or_directions():
    front = np.array([[0.5, 0], [0.9, 1], [0.95, 5], [1.0, 10]])
    assert knee(front * [100, 1e-6], BOTH) == knee(-front, ["min", "max"]) == 1


@pytest.mark.parametrize(
    ("front", "place"),
    [
        ([[0.9, 3.0]], 0),
        ([[0.5, 1.0], [0.9, 3.0]], 1),  # two points: the best first objective
        ([[0.1, 1.0], [0.2, 2.0], [0.3, 3.0]], 2),  # straight
        ([[0.1, 1.0], [0.15, 2.0], [0.3, 3.0]], 2),  # dented: no bulge
        ([[0.9, 3.0], [0.9, 3.0]], 0),  # duplicates
    ],
)
def test_knee_of_fronts_without_a_bulge(front, place):
    assert knee(front, BOTH) == place


@pytest.mark.parametrize("front", [[], [[NAN, 1.0]]])
def test_there_is_no_knee_without_points(front):
    with pytest.raises(InputError, match="knee"):
        knee(front, BOTH)


def test_trial_front_holds_complete_trials_by_cost(build):
    study = build.study(
        build.sparse(0.9, 3.0),
        build.control(0.8, 1.0),
        build.sparse(0.7, 2.0),  # dominated
        build.sparse(0.99, 0.5, state="stopped"),
        build.sparse(0.99, 0.5, state="running"),
        build.trial(state="failed"),
        build.sparse(0.95, math.nan),
        build.sparse(0.8, 1.0),  # as good as the control
    )
    assert trial_front(study)["trial"].tolist() == [1, 7, 0]


def test_trial_front_of_one_objective_is_the_best_trial(build):
    study = build.study(build.sparse(0.8, 1.0), build.sparse(0.9, 3.0), objectives={"val_accuracy": "max"})
    assert trial_front(study)["trial"].tolist() == [1]


@pytest.mark.parametrize("objectives", [{"val_accuracy": "max"}, {"val_accuracy": "max", "not_recorded": "min"}])
def test_trial_front_without_a_finished_trial_is_empty(build, objectives):
    assert trial_front(build.study(objectives=objectives)).empty
    assert trial_front(build.study(build.trial(state="failed"), objectives=objectives)).empty


def test_study_hypervolume_has_a_reference_a_tenth_beyond_the_worst(build):
    study = build.study(build.sparse(0.8, 1.0), build.sparse(0.9, 3.0), build.sparse(0.1, 9.0, state="stopped"))
    # reference (0.79, 3.2): boxes 0.01 x 2.2 and 0.11 x 0.2, which share 0.01 x 0.2
    assert study_hypervolume(study) == pytest.approx(0.022 + 0.022 - 0.002)
    assert study_hypervolume(study, reference=[0.5, 4.0]) == pytest.approx(0.3 * 3 + 0.1 * 1)
    assert study_hypervolume(build.study()) == 0


def test_what_does_not_meet_the_constraints_is_on_no_front(build):
    study = build.study(build.control(0.9, 3.0), build.sparse(0.8, 1.0), build.sparse(0.7, 0.5), build.sparse(0.6, 0.1))
    study.trials["feasible"] = pd.Series([True, True, False, None], dtype=object)
    assert trial_front(study)["trial"].tolist() == [3, 2, 1, 0]  # not asked for
    study.study["search"]["constraints"] = ["val_accuracy >= baseline - 0.1"]
    assert trial_front(study)["trial"].tolist() == [1, 0]
    assert study_hypervolume(study, [0.0, 3.0]) == pytest.approx(0.8 * 2.0)
