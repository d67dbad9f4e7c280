"""The nodes that trials may run on, as they come and go, and those that none can run on."""

from __future__ import annotations

import errno
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayError, RayTaskError

from sbp_tune.errors import InputError
from sbp_tune.study.autoscaler import autoscaled_places
from sbp_tune.study.file import Study
from sbp_tune.study.node_check import ask, problem_of
from sbp_tune.study.placement import room, trials_at_a_time
from sbp_tune.study.ray_errors import unwrapped
from sbp_tune.study.storage import REFUSED_NODES, open_study

_LOOK_S = 1.0
_ANSWER_S = 120.0  # a node may first have to start a process, on a machine that is busy
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # full, over its quota, read-only
_ADDRESS = re.compile(r"\bip[=:]\s*([\w.:]*\w)")  # in the text of Ray's errors
_NOT_IMPORTED = "failed to import on the worker"  # Ray's words where the trainable cannot be loaded


class _Node(NamedTuple):
    address: str
    resources: dict[str, float]


class TrialNodes:
    """Follows the nodes of the Ray that is connected.

    asked: whether each node is asked, before it counts, if trials can run there; this machine alone need not be.
    What changes is printed, a line each, until `tell` says where else.
    """

    def __init__(self, study: Study, asked: bool = False) -> None:
        self._study, self._asked = study, asked
        self._alive: dict[str, _Node] = {}  # by Ray's id
        self._known: set[str] = set()  # those of which it has been looked at whether trials can run there
        self._asking: dict[Any, tuple[str, float]] = {}  # reference to an answer -> node, and since when
        self._autoscaled = autoscaled_places(study.demands())
        self._looked, self._waits = -_LOOK_S, False
        self.refused: dict[str, str] = {}  # by Ray's id of a node: why no trial runs there
        self._path: Path | None = None
        self._say: Callable[[str], None] = lambda line: print(f"warning: {line}", file=sys.stderr)
        self._look(first=True)

    def tell(self, path: Path, say: Callable[[str], None]) -> None:
        """From now on `say` is told, and the study of a directory keeps why no trial runs on a node."""
        self._path, self._say = path, say
        self._note_refused()

    def check(self) -> None:
        """Waits for the answers of all nodes; InputError where no trial can run on any, and none will be added."""
        while self._asking:
            ray.wait(list(self._asking), timeout=_LOOK_S)
            self._look()
        if self.refused and self._room() == 0 and not self._autoscaled:
            raise InputError(f"{self._study.source}: no node can run a trial: {why}" for why in self.refused.values())
        usable = {key: node.resources for key, node in self._alive.items() if key not in self.refused}
        trials_at_a_time(self._study, usable, self._autoscaled)  # an error where one of its models fits nowhere

    def room(self) -> int:
        """How many trials there may be at a time now, those included that run: as many as the machines hold.

        Where an autoscaler adds machines for trials that wait, as many as those would hold.
        """
        self._look()
        most = max(self._room(), self._autoscaled)
        if (waits := most == 0) != self._waits:
            self._waits = waits
            if waits:
                self._say("Nodes: none holds a trial any more; waiting for one that joins.")
        return min(most, self._study.file.search.concurrent or most)

    def avoided(self) -> list[str]:
        """Ray's ids of the nodes that live and that no trial is to be placed on."""
        return sorted(self.refused.keys() & self._alive.keys())

    def fault_of(self, error: BaseException) -> str | None:
        """What a node is to blame for, in a line that names it, where an attempt ended so; None where the trial is.

        The node is asked again. Not where it is the only one that is left: on any disk that is full the search stops.
        """
        if not (_NOT_IMPORTED in str(error) or is_full_disk(error)):
            return None
        address = getattr(error, "ip", None) or _address(str(error))  # as `ray.get` raises it, only in its text
        suspects = [key for key, node in self._alive.items() if node.address == address]
        for node in suspects:
            if node not in self.refused:
                self._ask(node)
        while any(node in suspects for node, _ in self._asking.values()):
            ray.wait(list(self._asking), timeout=_LOOK_S)
            self._take_answers()
        blamed = [self.refused[node] for node in suspects if node in self.refused]
        if not blamed or (is_full_disk(error) and self._room() == 0):
            return None
        return blamed[0]

    def _room(self) -> int:
        usable = self._alive.keys() & self._known - self.refused.keys()
        return room(self._study, (self._alive[node].resources for node in usable))

    def _look(self, first: bool = False) -> None:
        """Takes up what has changed, at most once a second."""
        if time.monotonic() - self._looked >= _LOOK_S:
            found = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
            for gone in self._alive.keys() - found.keys():
                self._say(f"Nodes: {self._alive.pop(gone).address} is gone.")
            for key in found.keys() - self._alive.keys():
                self._alive[key] = node = _Node(found[key]["NodeManagerAddress"], found[key]["Resources"])
                if not first and (more := room(self._study, [node.resources])):
                    self._say(f"Nodes: {node.address} has joined, which holds {more} trial{'s' if more > 1 else ''}.")
            asked = {node for node, _ in self._asking.values()}
            for key in self._alive.keys() - self._known - asked:
                if self._asked:
                    self._ask(key)
                else:
                    self._known.add(key)
            self._looked = time.monotonic()
        self._take_answers()

    def _ask(self, node: str) -> None:
        self._asking[ask(node, self._study.trainable)] = node, time.monotonic()

    def _take_answers(self) -> None:
        answered, _ = (
            ray.wait(list(self._asking), num_returns=len(self._asking), timeout=0) if self._asking else ([], [])
        )
        for reference in answered:
            node, _ = self._asking.pop(reference)
            try:
                self._take(node, problem_of(ray.get(reference)))
            except RayTaskError as error:
                self._take(node, f"it cannot be asked: {str(error).splitlines()[-1]}")
            except RayError:
                continue  # it goes, or a process on it went: asked again while it lives
        for reference, (node, since) in list(self._asking.items()):
            if time.monotonic() - since > _ANSWER_S:
                del self._asking[reference]
                self._take(node, f"it has not answered for {_ANSWER_S:g} s")

    def _take(self, node: str, problem: str | None) -> None:
        self._known.add(node)
        if problem is not None and node in self._alive and node not in self.refused:
            self.refused[node] = f"node {self._alive[node].address}: {problem}"
            self._say(f"{self.refused[node]}: no trial runs there.")
            self._note_refused()

    def _note_refused(self) -> None:
        if self._path is not None and self.refused:
            storage = open_study(self._path)
            known = storage.user_attrs.get(REFUSED_NODES, [])
            storage.set_user_attr(REFUSED_NODES, list(dict.fromkeys([*known, *self.refused.values()])))


def is_full_disk(error: BaseException) -> bool:
    """Whether a disk took nothing any more, in whatever process."""
    cause = unwrapped(error)
    return isinstance(cause, OSError) and cause.errno in _DISK


def _address(text: str) -> str | None:
    found = _ADDRESS.search(text)
    return found[1] if found else None
