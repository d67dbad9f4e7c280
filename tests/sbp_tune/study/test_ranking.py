import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sbp_tune.study.ranking import SPREADS, ahead, crowding, epsilon_net, is_kept, place

ranks = st.sampled_from(sorted(SPREADS))
factors = st.floats(1.1, 8)


@st.composite
def rungs(draw, objectives=None):
    """Costs [trials, objectives] of few distinct values, so that many trials tie or dominate; the newcomer is last."""
    width = objectives or draw(st.integers(1, 3))
    values = draw(st.sampled_from([st.integers(0, 4).map(float), st.floats(-1e6, 1e6)]))
    rows = draw(st.lists(st.lists(values, min_size=width, max_size=width), min_size=1, max_size=24))
    return np.array(rows, dtype=float)


def dominating(costs):
    """How many dominate the last, by the definition."""
    return sum(is_below(row, costs[-1]) for row in costs)


def is_below(one, other):
    pairs = list(zip(one, other, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


@given(rungs(), factors, ranks)
def test_a_non_dominated_newcomer_is_never_stopped(costs, factor, rank):
    if dominating(costs) == 0:
        assert is_kept(costs, factor, rank)


@given(rungs(), factors, ranks)
def test_one_dominated_by_more_than_the_kept_share_always_is(costs, factor, rank):
    if dominating(costs) > len(costs) / factor:
        assert not is_kept(costs, factor, rank)


@given(rungs(), factors, ranks, st.randoms())
def test_the_order_of_those_before_is_nothing(costs, factor, rank, random):
    shuffled = costs[[*random.sample(range(len(costs) - 1), len(costs) - 1), len(costs) - 1]]
    assert place(costs, rank) == place(shuffled, rank)
    assert is_kept(costs, factor, rank) == is_kept(shuffled, factor, rank)


@given(rungs(), ranks)
def test_places_are_a_ranking_in_which_dominance_comes_first(costs, rank):
    places = [place(np.roll(costs, -1 - index, axis=0), rank) for index in range(len(costs))]
    rows = [tuple(row) for row in costs.tolist()]
    assert sorted(places) == sorted(min(places[i] for i in range(len(rows)) if rows[i] == row) for row in rows)
    for mine, row in zip(places, rows, strict=True):
        better = sum(1 for theirs in places if theirs < mine)
        assert mine == better, "so many are ahead as have a better place"
        for theirs, other in zip(places, rows, strict=True):
            if is_below(other, row):
                assert theirs < mine


@given(rungs(), factors, ranks)
def test_those_ahead_are_the_first_by_place_and_whom_none_dominates(costs, factor, rank):
    found, kept = ahead(costs, factor, rank), math.floor(len(costs) / factor)
    assert len(set(found)) == len(found)
    turned = [np.roll(costs, -1 - index, axis=0) for index in range(len(costs))]
    places = [place(rows, rank) for rows in turned]
    expected = {i for i, rows in enumerate(turned) if kept and (places[i] < kept or dominating(rows) == 0)}
    assert set(found) == expected
    assert [places[i] for i in found] == sorted(places[i] for i in found)


@given(rungs(), ranks, st.integers(-20, 20))
def test_an_objectives_unit_is_nothing(costs, rank, power):
    scaled = costs.copy()
    scaled[:, 0] *= 2.0**power
    assert place(costs, rank) == place(scaled, rank)


@given(rungs(objectives=1), factors, ranks)
def test_one_objective_alone_keeps_the_best_share(costs, factor, rank):
    better = int((costs[:, 0] < costs[-1, 0]).sum())
    assert place(costs, rank) == better
    assert is_kept(costs, factor, rank) == (better < math.ceil(len(costs) / factor))


@pytest.mark.parametrize("rank", sorted(SPREADS))
def test_a_chain_is_ranked_by_item_not_by_order(rank):
    """The mistake of a published implementation: it takes the sorted indices for the ranks."""
    chain = np.array([[1.0, 1.0], [2.0, 2.0], [0.0, 0.0]])
    assert [place(np.roll(chain, -1 - index, axis=0), rank) for index in range(3)] == [1, 2, 0]
    assert is_kept(chain, 3, rank)


def test_a_front_is_spread():
    front = np.array([[0, 1], [0.1, 0.9], [0.2, 0.8], [0.6, 0.4], [1, 0]])
    # From one end to the other, then the farthest from both (sqrt(0.32) at 0.6), then 0.2 from the end.
    assert epsilon_net(front).tolist() == [0, 4, 3, 2, 1]
    # The ends; then by both neighbours' distance: 0.8 around 0.6, 0.5 around 0.2, 0.2 around 0.1.
    assert crowding(front).tolist() == [0, 4, 3, 2, 1]
    front = np.array([[0, 1], [0.45, 0.55], [0.5, 0.5], [0.55, 0.45], [1, 0]])
    assert epsilon_net(front).tolist() == [0, 4, 2, 1, 3]  # ties: the first by the first objective
    assert crowding(front).tolist() == [0, 4, 1, 3, 2]


@pytest.mark.parametrize(("rank", "kept"), [("epsnet", [True, False, True]), ("crowding", [True, True, False])])
def test_the_spread_decides_within_a_front(rank, kept):
    """Of 12 trials 6 go on: 1 in front 0, and 5 of front 1's 11; asked about three of these, worked out by hand."""
    x = np.array([0, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 1])
    front = np.column_stack([1 + x, 2 - x])
    # epsnet: 0, 1, 0.5, then 0.3 or 0.7 (0.2 from 0.5, ties to the first), so 0.3, 0.7 fill the five.
    # crowding: 0, 1, then the two with 0.35 around them (0.3, 0.7), then the first of those with 0.1.
    asked = {"epsnet": [0.5, 0.45, 0.7], "crowding": [0.3, 0.7, 0.5]}[rank]
    for value, expected in zip(asked, kept, strict=True):
        own = int(np.flatnonzero(x == value)[0])
        costs = np.vstack([[[0.5, 0.5]], np.delete(front, own, axis=0), front[own]])
        assert is_kept(costs, 2, rank) == expected, value


def test_points_too_close_to_tell_apart_are_all_placed():
    front = np.array([[0.0, 1.0], [5e-324, 0.5], [1e-323, 0.0]])
    for spread in SPREADS.values():
        assert sorted(spread(front).tolist()) == [0, 1, 2]
