"""Where trials would run: how many fit on each node, and the error when none does."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from sbp_tune.energy.nvml import system_nvml
from sbp_tune.errors import InputError
from sbp_tune.study.file import Study
from sbp_tune.study.sections import ResourcesConfig

Nodes = dict[str, dict[str, float]]  # name of a node -> Ray's resources of it
AVOIDED = "avoided"  # in a trial's lease: Ray's ids of nodes that it must not be placed on


def places(node: dict[str, float], resources: ResourcesConfig) -> int:
    """How many trials a node holds at a time."""
    by_cpu = int(node.get("CPU", 0) // resources.cpu)
    if resources.gpu == 0:
        return by_cpu
    on_each = int(1 / resources.gpu + 1e-9)  # Ray gives no trial parts of two GPUs
    return min(by_cpu, int(node.get("GPU", 0)) * on_each)


def trials_at_a_time(study: Study, nodes: Nodes, autoscaled: int = 0) -> int:
    """How many trials run at once on these nodes; InputError, instead of waiting for ever, where none fits.

    autoscaled: how many would, if all machines ran that an autoscaler may start.
    """
    resources = study.resources
    count = max(sum(places(node, resources) for node in nodes.values()), autoscaled)
    if count == 0:
        cpus, gpus = (sum(node.get(kind, 0) for node in nodes.values()) for kind in ("CPU", "GPU"))
        raise InputError(
            f"{study.source}: resources: a trial asks for cpu {resources.cpu} and gpu {resources.gpu:g} on one node, "
            f"but Ray has {cpus:g} CPUs and {gpus:g} GPUs on {len(nodes)} node{'s' if len(nodes) != 1 else ''}"
        )
    return min(count, study.file.search.concurrent or count)


def trial_resources(resources: ResourcesConfig) -> Callable[[dict[str, Any]], Any]:
    """For Ray: what a trial of a config, with its lease, is to be given, and on which nodes it must not be."""
    bundle = {"CPU": float(resources.cpu), "GPU": float(resources.gpu)}

    def request(config: dict[str, Any]) -> Any:
        from ray.tune import PlacementGroupFactory

        avoided = config.get("lease", {}).get(AVOIDED)
        labels = {"bundle_label_selector": [{"ray.io/node-id": f"!in({','.join(avoided)})"}]} if avoided else {}
        return PlacementGroupFactory([bundle], **labels)

    return request


def local_nodes() -> Nodes:
    """This machine as a local Ray would see it, without starting one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {"this machine": {"CPU": float(cores), "GPU": float(len(system_nvml().uuids()))}}


def ray_nodes() -> Nodes:
    """The living nodes of the Ray that this process is connected to."""
    import ray

    nodes = [node for node in ray.nodes() if node["Alive"]]
    addresses = [node["NodeManagerAddress"] for node in nodes]
    names = [
        f"{address} ({node['NodeID'][:8]})" if addresses.count(address) > 1 else address
        for address, node in zip(addresses, nodes, strict=True)
    ]
    return {name: node["Resources"] for name, node in zip(names, nodes, strict=True)}
