"""Where trials would run: how many fit on each node, and the error when none does."""

from __future__ import annotations

import os

from sbp_tune.energy.nvml import system_nvml
from sbp_tune.errors import InputError
from sbp_tune.study.file import Study
from sbp_tune.study.sections import ResourcesConfig

Nodes = dict[str, dict[str, float]]  # name of a node -> Ray's resources of it


def places(node: dict[str, float], resources: ResourcesConfig) -> int:
    """How many trials a node holds at a time."""
    by_cpu = int(node.get("CPU", 0) // resources.cpu)
    if resources.gpu == 0:
        return by_cpu
    on_each = int(1 / resources.gpu + 1e-9)  # Ray gives no trial parts of two GPUs
    return min(by_cpu, int(node.get("GPU", 0)) * on_each)


def trials_at_a_time(study: Study, nodes: Nodes) -> int:
    """How many trials run at once on these nodes; InputError, instead of waiting for ever, where none fits."""
    resources = study.resources
    count = sum(places(node, resources) for node in nodes.values())
    if count == 0:
        cpus, gpus = (sum(node.get(kind, 0) for node in nodes.values()) for kind in ("CPU", "GPU"))
        raise InputError(
            f"{study.source}: resources: a trial asks for cpu {resources.cpu} and gpu {resources.gpu:g} on one node, "
            f"but Ray has {cpus:g} CPUs and {gpus:g} GPUs on {len(nodes)} node{'s' if len(nodes) != 1 else ''}"
        )
    return min(count, study.file.search.concurrent or count)


def local_nodes() -> Nodes:
    """This machine as a local Ray would see it, without starting one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {"this machine": {"CPU": float(cores), "GPU": float(len(system_nvml().uuids()))}}


def ray_nodes() -> Nodes:
    """The living nodes of the Ray that this process is connected to."""
    import ray

    return {node["NodeManagerAddress"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
