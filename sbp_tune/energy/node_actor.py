"""The node's meter as a Ray actor: every trial on a node leases from the same one, in whatever process it runs."""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sbp_tune.config import EnergyConfig
from sbp_tune.energy.reading import Reading
from sbp_tune.energy.records import Reason
from sbp_tune.energy.repeater import Repeater
from sbp_tune.errors import MeterError, SbpTuneError
from sbp_tune.remote import is_uri

if TYPE_CHECKING:
    from sbp_tune.energy.counters.machine import MachineCounters

# Environment variable for counters of one's own (a lab's power meter, a test's fake GPUs): `module:function`, called
# with cpu_idle_w, cpu_busy_w, ram_w_per_gb and gpu_idle_w in the meter's process; it returns MachineCounters, or their
# like.
COUNTERS = "SBP_TUNE_COUNTERS"
ANSWER_S = 120.0  # the first answer waits for a process to start, on a machine that is busy with trials
STOP_S = 15.0
IDLE_S = 600.0  # without any lease: the search is dead, or has no trials for this node

_NAMESPACE = "sbp-tune"
_RETRY_S = 0.5


class NodeLease:
    """What one process tree uses of the node it runs on, from `start` to `stop`, by the node's meter.

    folder: of the ledger, or a URI of object storage; trial: None for the search itself; attempt, gpus, cpus: see
    `LeaseOpened`. The meter is made with the first lease on a node and goes on without the one who made it. Ray must
    be connected.
    """

    def __init__(
        self,
        folder: Path | str,
        trial: str | None,
        attempt: int,
        config: EnergyConfig,
        gpus: Mapping[str, float],
        cpus: float,
    ) -> None:
        self._folder, self._config = folder, config
        self._terms: dict[str, Any] = {"attempt": attempt, "gpus": dict(gpus), "cpus": cpus}
        self._trial, self._name = trial, f"{trial or 'driver'}-{attempt}-{uuid.uuid4().hex[:8]}"

    def start(self, epoch: int = 0) -> None:
        """The lease begins, of a run that has finished so many epochs already. Synchronise the GPU before."""
        self._meter = _node_actor(self._folder, self._config)
        self._call("open", self._name, self._trial, pid=os.getpid(), continued_epoch=epoch, **self._terms)

    def mark(self, epoch: int) -> Reading:
        """An epoch has ended, and a checkpoint of it is about to be written; the energy until now."""
        reading: Reading = self._call("mark", self._name, epoch, True)
        return reading

    def stop(self, reason: Reason) -> Reading:
        """The lease ends; the energy until now."""
        reading: Reading = self._call("close", self._name, reason, timeout=STOP_S)
        return reading

    def _call(self, method: str, *arguments: Any, timeout: float = ANSWER_S, **options: Any) -> Any:
        """The meter's answer; MeterError where it has none. Safe to repeat: no call does more the second time."""
        import ray
        from ray.exceptions import (
            ActorDiedError,
            ActorUnavailableError,
            ActorUnschedulableError,
            GetTimeoutError,
            RayError,
            RayTaskError,
        )

        end = time.monotonic() + timeout
        while True:
            try:
                return ray.get(getattr(self._meter, method).remote(*arguments, **options), timeout=timeout)
            except RayTaskError as error:
                if isinstance(error.cause, SbpTuneError):
                    raise MeterError(str(error.cause)) from None
                raise MeterError(f"the energy meter of this node failed: {_last_line(error)}") from error
            except GetTimeoutError as error:
                raise MeterError(f"the energy meter of this node has not answered for {timeout:g} s") from error
            except (ActorDiedError, ActorUnavailableError, ActorUnschedulableError) as error:
                # Ray starts it again, or we do: after being stopped it keeps its name for a moment. Ray's own
                # retries of a call are not used, since they print a traceback each.
                if _never_began(error) or time.monotonic() > end:
                    why = _last_line(error)
                    raise MeterError(f"the energy meter of this node cannot be started: {why}") from error
                time.sleep(_RETRY_S)
                self._meter = _node_actor(self._folder, self._config)
            except RayError as error:
                raise MeterError(f"the energy meter of this node cannot be reached: {_last_line(error)}") from error


def end_attempt(folder: Path | str, trial: str, attempt: int) -> None:
    """Asks the meters of a study to end the lease of a trial that was stopped, on whatever node; waits for none."""
    for actor in _node_actors(folder):
        actor.close_attempt.remote(trial, attempt, "stopped")


def stop_meters(folder: Path | str) -> list[str]:
    """Ends the meters of a study on all nodes, each after a last snapshot; what went wrong with it, a line each."""
    import ray
    from ray.exceptions import RayError

    problems: list[str] = []
    for actor in _node_actors(folder):
        try:
            problem = ray.get(actor.stop.remote(), timeout=STOP_S)
            if problem is not None:
                problems.append(problem)
        except RayError as error:
            problems.append(f"an energy meter did not stop: {_last_line(error)}")
        finally:
            ray.kill(actor)  # also one that hangs: a detached actor would outlive the search
    return problems


def _never_began(error: Exception) -> bool:
    """Whether an actor died of its own `__init__`, as it would again."""
    return "creation task" in str(error)


def _last_line(error: Exception) -> str:
    """Ray's errors bring a traceback of the other process; its last line says what happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].removeprefix(f"{SbpTuneError.__module__}.SbpTuneError: ") if lines else type(error).__name__


def _node_actor(folder: Path | str, config: EnergyConfig) -> Any:
    """The meter of this node for a study, made if there is none."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    node = ray.get_runtime_context().get_node_id()
    options = {
        "name": f"{_prefix(folder)}{node}",
        "namespace": _NAMESPACE,
        "get_if_exists": True,
        "lifetime": "detached",  # it must not die with the trial that happened to be the first
        "num_cpus": 0,
        "max_restarts": -1,
        "scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False),
    }
    counters = os.environ.get(COUNTERS)
    return ray.remote(_Meter).options(**options).remote(str(folder), node, config.model_dump(), counters, IDLE_S)


def _node_actors(folder: Path | str) -> Iterator[Any]:
    """The meters of a study on all nodes that there are."""
    import ray

    for found in ray.util.list_named_actors(all_namespaces=True):
        if found["namespace"] == _NAMESPACE and found["name"].startswith(_prefix(folder)):
            try:
                actor = ray.get_actor(found["name"], _NAMESPACE)
            except ValueError:  # its node is gone, and it with it
                continue
            yield actor


def _prefix(folder: Path | str) -> str:
    place = str(folder) if is_uri(str(folder)) else str(Path(folder).resolve())
    return f"meter-{hashlib.sha256(place.encode()).hexdigest()[:12]}-"


class _Meter:
    """NodeMeter in an actor: made anew by Ray when its process dies, it goes on with its own ledger.

    idle_s: without a lease for so long it ends itself. On a cluster it would outlive a search that was killed, and
    bill it the machine for ever; who comes later makes another.
    """

    def __init__(self, folder: str, node: str, config: dict[str, Any], counters: str | None, idle_s: float) -> None:
        import ray

        from sbp_tune.energy.node_meter import NodeMeter
        from sbp_tune.energy.spool import Spool, Spooling

        spool = Spool(folder) if is_uri(folder) else None
        self._meter = NodeMeter(node, Path(folder) if spool is None else spool.folder, _counters(counters, config))
        self._spooling = None if spool is None else Spooling(spool)
        self._itself, self._idle_s = ray.get_runtime_context().current_actor, idle_s
        self._wanted = time.monotonic()
        self._watch = Repeater(idle_s / 10, self._end_if_idle)

    def _end_if_idle(self) -> None:
        import ray

        now = time.monotonic()
        if self._meter.leases:
            self._wanted = now
        elif now - self._wanted > self._idle_s:
            ray.kill(self._itself)  # at any moment: a lease that is just being opened is opened again on the next

    def open(self, *arguments: Any, **options: Any) -> None:
        self._meter.open(*arguments, **options)

    def mark(self, lease: str, epoch: int, checkpointed: bool) -> Reading:
        return self._meter.mark(lease, epoch, checkpointed)

    def close(self, lease: str, reason: Reason) -> Reading:
        return self._meter.close(lease, reason)

    def close_attempt(self, trial: str, attempt: int, reason: Reason) -> None:
        with suppress(SbpTuneError):  # nobody waits for this; a meter that has failed says so to all who do
            self._meter.close_attempt(trial, attempt, reason)

    def stop(self) -> str | None:
        self._meter.stop()
        return None if self._spooling is None else self._spooling.stop()


def _counters(name: str | None, config: dict[str, Any]) -> MachineCounters:
    """What a meter reads: this machine, or what the function `module:function` makes of the coefficients."""
    coefficients = {key: config[key] for key in ("cpu_idle_w", "cpu_busy_w", "ram_w_per_gb", "gpu_idle_w")}
    if name is None:
        from sbp_tune.energy.counters.machine import MachineCounters

        return MachineCounters(**coefficients)
    try:
        module, _, function = name.partition(":")
        make: Callable[..., MachineCounters] = getattr(import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise SbpTuneError(f"{COUNTERS}={name}: needs module:function: {error}") from error
    return make(**coefficients)
