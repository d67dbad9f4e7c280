"""A search in simulated time: workers train trials epoch by epoch, and a scheduler stops some."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

from benchmarks.early_stopping.problems import Curve, Proposals
from sbp_tune.study.scheduler import MOASHA
from sbp_tune.study.schedulers import contestant


@dataclass
class Search:
    """What became of the trials. trained: each with the kWh that all trials together had used by then."""

    trained: list[tuple[float, Curve]] = field(default_factory=list)
    started: int = 0
    stopped: int = 0
    spent: float = 0.0

    def trained_within(self, kwh: float) -> list[Curve]:
        """Trials that were trained to their end before so much energy was used."""
        return [curve for spent, curve in self.trained if spent <= kwh]


def simulate(proposals: Proposals, scheduler: MOASHA | None, kwh: float, workers: int = 4) -> Search:
    """Runs trials on asynchronous workers until so much energy is used, or no trial is left.

    Every epoch's energy counts once it is over, of trials that are stopped, or unfinished at the end, too. The
    scheduler must know no contestant by itself: it is given them.
    """
    search = Search()
    events: list[tuple[float, int, int, int, Curve]] = []  # time, worker, number, epoch's index, trial
    waiting: dict[int, tuple[int, Curve]] = {}  # number -> the epochs it has trained, and itself

    def start(worker: int, now: float) -> None:
        number = None if scheduler is None else scheduler.next_promoted()
        if scheduler is not None and number is not None:
            scheduler.promote(number)
            epochs, curve = waiting.pop(number)
        elif (proposed := proposals.ask()) is not None:
            number, epochs, curve = search.started, 0, proposed
            search.started += 1
        else:
            return
        heapq.heappush(events, (now + curve.rows[epochs]["epoch_time_s"], worker, number, epochs, curve))

    for worker in range(workers):
        start(worker, 0.0)
    while events:
        now, worker, number, index, curve = heapq.heappop(events)
        row, is_complete = curve.rows[index], index + 1 == curve.config["epochs"]
        has_failed = not is_complete and index + 1 == len(curve.rows)  # it diverged
        search.spent += row["kwh"] - (curve.rows[index - 1]["kwh"] if index else 0.0)
        if search.spent > kwh:
            break
        over = is_complete or has_failed
        if not over and (scheduler is None or scheduler.goes_on(contestant(number, curve.config), row)):
            following = now + curve.rows[index + 1]["epoch_time_s"]
            heapq.heappush(events, (following, worker, number, index + 1, curve))
            continue
        if scheduler is not None and number in scheduler.waiting:
            waiting[number] = index + 1, curve
        else:
            if is_complete:
                search.trained.append((search.spent, curve))
            search.stopped += not over
            proposals.tell(number, curve, is_complete)
        start(worker, now)
    return search
