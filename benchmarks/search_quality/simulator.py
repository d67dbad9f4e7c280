"""A search with asynchronous workers in simulated time, and a log by which an interrupted benchmark goes on."""

from __future__ import annotations

import heapq
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.search_quality.peers import PEERS, Search
from benchmarks.search_quality.problems import Pair, Problem, problems


class Run(NamedTuple):
    """One search: the true values of its points, in the order in which their runs ended, and its own seconds."""

    values: list[Pair]
    seconds: float


Runs = dict[tuple[str, str, int], Run]  # by problem, peer and seed


def simulate(problem: Problem, search: Search, evaluations: int, workers: int, seed: int) -> list[Pair]:
    """True values [evaluations] of what a search proposes, as its runs end; it is told the observed ones.

    Whenever a worker is free the search is asked, without knowing what still runs. Durations are log-normal
    (sigma 0.5), those of a seed the same for all searches; so is the noise of a point.
    """
    durations = np.random.default_rng([seed, 1]).lognormal(sigma=0.5, size=evaluations)
    running: list[tuple[float, int, Any, dict[str, Any]]] = []
    now, ended = 0.0, []
    for number in range(evaluations + workers):
        if len(running) == workers or number >= evaluations:
            if not running:
                break
            now, _, handle, values = heapq.heappop(running)
            search.tell(handle, problem.observed(values, seed))
            ended.append(problem.true(values))
        if number < evaluations:
            handle, values = search.ask()
            heapq.heappush(running, (now + durations[number], number, handle, values))
    return ended


def run(log: Path, name: str, peer: str, evaluations: int, workers: int, seed: int) -> Run:
    """A search of a problem by a peer, or what the log has of it (JSON lines; as long or longer)."""
    found = recorded(log, workers).get((name, peer, seed))
    if found is not None and len(found.values) >= evaluations:
        return Run(found.values[:evaluations], found.seconds)
    problem, start = problems()[name], time.process_time()
    values = simulate(problem, PEERS[peer].make(problem, seed), evaluations, workers, seed)
    done = Run(values, time.process_time() - start)
    log.parent.mkdir(parents=True, exist_ok=True)
    key = {"problem": name, "peer": peer, "version": PEERS[peer].version, "workers": workers, "seed": seed}
    with log.open("a", encoding="utf-8") as file:  # one short write: lines of several processes do not mix
        file.write(json.dumps({**key, **done._asdict()}) + "\n")
    return done


def recorded(log: Path, workers: int) -> Runs:
    """What the log has of the installed versions, the longest run where there are several."""
    found: Runs = {}
    for line in map(json.loads, log.read_text(encoding="utf-8").splitlines() if log.exists() else []):
        key = line["problem"], line["peer"], line["seed"]
        peer = PEERS.get(line["peer"])
        if peer is None or line["workers"] != workers or line["version"] != peer.version:
            continue
        if key not in found or len(line["values"]) > len(found[key].values):
            found[key] = Run([(a, b) for a, b in line["values"]], line["seconds"])
    return found
