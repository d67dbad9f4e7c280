"""Which trials of a rung are ahead: by non-dominated front, and within a front those that spread over it.

Costs are [trials, objectives], finite, smaller is better. All answers depend on the set of the trials only,
never on their order; equal trials share a place.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import moocore
import numpy as np
from numpy.typing import NDArray

Costs = NDArray[np.float64]


def is_kept(costs: Costs, reduction_factor: float, rank: str) -> bool:
    """Whether the last trial is among the first 1 / reduction_factor (rounded up), or dominated by none.

    So a non-dominated trial is always kept, however many there are, and one that as many dominate as are
    kept never is; the ranking decides what is between.
    """
    own, kept = costs[-1], math.ceil(len(costs) / reduction_factor)
    dominating = np.count_nonzero((costs <= own).all(axis=1) & (costs < own).any(axis=1))
    if dominating == 0:
        return True
    return bool(dominating < kept) and place(costs, rank) < kept


def place(costs: Costs, rank: str) -> int:
    """How many trials are ahead of the last one."""
    points, which = _distinct(costs)
    counts, own = np.bincount(which), which[-1]
    front = moocore.pareto_rank(points)
    peers = np.flatnonzero(front == front[own])
    peers = peers[SPREADS[rank](_scaled(points[peers]))]
    before = peers[: int(np.flatnonzero(peers == own)[0])]
    return int(counts[front < front[own]].sum() + counts[before].sum())


def ahead(costs: Costs, reduction_factor: float, rank: str) -> list[int]:
    """Rows that go on where trials wait for each other, the first first: the first 1 / reduction_factor (rounded down),
    and all that none dominates; nobody as long as that is less than one trial.
    """
    kept = math.floor(len(costs) / reduction_factor)
    if kept == 0:
        return []
    points, which = _distinct(costs)
    front, found = moocore.pareto_rank(points), list[int]()
    for level in range(int(front.max()) + 1):
        peers = np.flatnonzero(front == level)
        for peer in peers[SPREADS[rank](_scaled(points[peers]))]:
            if level > 0 and len(found) >= kept:
                return found
            found += np.flatnonzero(which == peer).tolist()
    return found


def epsilon_net(points: Costs) -> NDArray[np.int64]:
    """Order of the distinct points of a front: the first, then always the one farthest from all before it.

    Source: Clarkson 2006, "Nearest-neighbor searching and metric space dimensions"; as in MO-ASHA, Schmucker
    et al. 2021, arXiv:2106.12639, whose first point is drawn at random.
    """
    order, distance = [0], np.linalg.norm(points - points[0], axis=1)
    distance[0] = -1  # taken
    while len(order) < len(points):
        farthest = int(np.argmax(distance))
        order.append(farthest)
        distance = np.minimum(distance, np.linalg.norm(points - points[farthest], axis=1))
        distance[farthest] = -1
    return np.array(order)


def crowding(points: Costs) -> NDArray[np.int64]:
    """Order of the points of a front by the room around each, most first; the ends have all room there is.

    Source: Deb et al. 2002, doi:10.1109/4235.996017.
    """
    room = np.zeros(len(points))
    for column in points.T:
        order = np.argsort(column, kind="stable")
        gaps = np.full(len(points), math.inf)
        gaps[1:-1] = column[order][2:] - column[order][:-2]
        room[order] += gaps
    return np.argsort(-room, kind="stable")


SPREADS: dict[str, Callable[[Costs], NDArray[np.int64]]] = {"epsnet": epsilon_net, "crowding": crowding}


def _distinct(costs: Costs) -> tuple[Costs, NDArray[np.int64]]:
    """The different rows, sorted, and which of them each row is: np.unique(axis=0) in a tenth of its time."""
    order = np.lexsort(costs.T[::-1])
    is_new = np.append(True, (costs[order][1:] != costs[order][:-1]).any(axis=1))
    which = np.empty(len(costs), dtype=np.int64)
    which[order] = np.cumsum(is_new) - 1
    return costs[order][is_new], which


def _scaled(points: Costs) -> Costs:
    """Each objective from 0 to 1 over the front: a kWh and an accuracy have no common unit."""
    span = np.ptp(points, axis=0)
    return (points - points.min(axis=0)) / np.where(span > 0, span, 1)
