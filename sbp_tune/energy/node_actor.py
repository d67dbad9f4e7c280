"""The node's meter as a Ray actor: every trial on a node leases from the same one, in whatever process it runs."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sbp_tune.config import EnergyConfig
from sbp_tune.energy.reading import Reading
from sbp_tune.energy.records import Reason

_NAMESPACE = "sbp-tune"
_RETRIES = 5  # of a call, while Ray restarts a meter that died; calls may be made twice


class NodeLease:
    """What one process tree uses of the node it runs on, from `start` to `stop`, by the node's meter.

    folder: of the ledger; trial: None for the search itself; attempt, gpus, cpus: see `LeaseOpened`. The meter is
    made with the first lease on a node and goes on without the one who made it. Ray must be connected.
    """

    def __init__(
        self,
        folder: Path,
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
        import os

        self._meter = _node_actor(self._folder, self._config)
        self._call("open", self._name, self._trial, pid=os.getpid(), continued_epoch=epoch, **self._terms)

    def mark(self, epoch: int) -> Reading:
        """An epoch has ended, and a checkpoint of it is about to be written; the energy until now."""
        return self._call("mark", self._name, epoch, True)

    def stop(self, reason: Reason) -> None:
        """The lease ends."""
        self._call("close", self._name, reason)

    def _call(self, method: str, *arguments: Any, **options: Any) -> Any:
        import ray

        return ray.get(getattr(self._meter, method).remote(*arguments, **options))


def stop_meters(folder: Path) -> None:
    """Ends the meters of a study on all nodes, each after a last snapshot."""
    import ray
    from ray.exceptions import RayError

    for found in ray.util.list_named_actors(all_namespaces=True):
        if found["namespace"] != _NAMESPACE or not found["name"].startswith(_prefix(folder)):
            continue
        try:
            actor = ray.get_actor(found["name"], _NAMESPACE)
            ray.get(actor.stop.remote(), timeout=10)
            ray.kill(actor)
        except (RayError, ValueError):  # its node is gone, and it with it
            continue


def _node_actor(folder: Path, config: EnergyConfig) -> Any:
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
        "max_task_retries": _RETRIES,
        "scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False),
    }
    return ray.remote(_Meter).options(**options).remote(str(folder), node, config.model_dump())


def _prefix(folder: Path) -> str:
    return f"meter-{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:12]}-"


class _Meter:
    """NodeMeter in an actor: made anew by Ray when its process dies, it goes on with its own ledger."""

    def __init__(self, folder: str, node: str, config: dict[str, Any]) -> None:
        from sbp_tune.energy.counters.machine import MachineCounters
        from sbp_tune.energy.node_meter import NodeMeter

        counters = MachineCounters(
            cpu_idle_w=config["cpu_idle_w"], cpu_busy_w=config["cpu_busy_w"], ram_w_per_gb=config["ram_w_per_gb"]
        )
        self._meter = NodeMeter(node, Path(folder), counters)

    def open(self, *arguments: Any, **options: Any) -> None:
        self._meter.open(*arguments, **options)

    def mark(self, lease: str, epoch: int, checkpointed: bool) -> Reading:
        return self._meter.mark(lease, epoch, checkpointed)

    def close(self, lease: str, reason: Reason) -> None:
        self._meter.close(lease, reason)

    def stop(self) -> None:
        self._meter.stop()
