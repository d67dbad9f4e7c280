"""What one trial takes of a node: as the study file says, by its model, and where it is silent by the machines."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from sbp_tune.study.sections import ModelResources, ResourcesConfig

Nodes = dict[str, dict[str, float]]  # name of a node -> Ray's resources of it
TYPE = "accelerator_type:"
"""Beginning of the name of Ray's resource that says of which type a node's GPUs are."""

AVOIDED = "avoided"
"""Key of a trial's lease: Ray's ids of nodes that it must not be placed on."""

_OF_A_TYPE = 0.001  # of that resource, of which a node has 1: as Ray's own accelerator_type takes
_WITHOUT_GPU = 1  # cores of a trial where nothing says how many


@dataclass(frozen=True)
class Demand:
    """cpu: cores; gpu: whole GPUs, or a part of one; accelerator_type: of which type, as Ray names it; None: any."""

    cpu: int
    gpu: float = 0.0
    accelerator_type: str | None = None

    @property
    def bundle(self) -> dict[str, float]:
        """As Ray's resources of one node."""
        typed = {TYPE + self.accelerator_type: _OF_A_TYPE} if self.accelerator_type else {}
        return {"CPU": float(self.cpu), "GPU": float(self.gpu), **typed}

    def __str__(self) -> str:
        typed = f" of type {self.accelerator_type}" if self.accelerator_type else ""
        return f"{self.cpu} CPU and {self.gpu:g} GPU{typed}"


def demand_of(resources: ResourcesConfig, model: str) -> Demand:
    """That of a trial of a model, of resources that are resolved."""
    own = resources.models.get(model, resources)
    cpu, gpu = own.cpu or resources.cpu or _WITHOUT_GPU, resources.gpu if own.gpu is None else own.gpu
    return Demand(cpu, gpu or 0.0, resources.accelerator_type if gpu else None)


def resolved(resources: ResourcesConfig, nodes: Nodes, may_use_gpu: bool = True) -> ResourcesConfig:
    """What the file leaves open, by the machines: one GPU where there are any, and with it its share of the cores.

    may_use_gpu: False where the file says that trials train on the processor. Of unlike nodes the smallest share.
    """
    holding = [node for node in nodes.values() if node.get("GPU", 0) >= 1 and _has(node, resources.accelerator_type)]
    gpu = resources.gpu
    if gpu is None:
        gpu = 1.0 if resources.accelerator_type or (holding and may_use_gpu) else 0.0
    models = {}
    for name, own in resources.models.items():
        of_model = gpu if own.gpu is None else own.gpu
        cpu = own.cpu or resources.cpu or _share(of_model, holding)
        models[name] = ModelResources(cpu=cpu, gpu=of_model)
    cpu = resources.cpu or _share(gpu, holding)
    return resources.model_copy(update={"cpu": cpu, "gpu": gpu, "models": models})


def _share(gpu: float, holding: list[dict[str, float]]) -> int:
    """Cores that go with so many GPUs."""
    if gpu == 0 or not holding:
        return _WITHOUT_GPU
    return max(1, min(math.floor(node.get("CPU", 0) / node["GPU"] * gpu + 1e-9) for node in holding))


def _has(node: Mapping[str, float], accelerator_type: str | None) -> bool:
    return accelerator_type is None or TYPE + accelerator_type in node


def places(node: Mapping[str, float], demand: Demand) -> int:
    """How many trials a node holds at a time."""
    by_cpu = int(node.get("CPU", 0) // demand.cpu)
    if demand.gpu == 0:
        return by_cpu
    if not _has(node, demand.accelerator_type):
        return 0
    gpus = int(node.get("GPU", 0))
    # Ray gives no trial parts of two GPUs.
    by_gpu = gpus // int(demand.gpu) if demand.gpu >= 1 else gpus * int(1 / demand.gpu + 1e-9)
    return min(by_cpu, by_gpu)


def types_of(nodes: Nodes) -> list[str]:
    """Types of the GPUs of these nodes, in alphabetical order; 'unknown' for those of which Ray does not know it."""
    types = set()
    for node in nodes.values():
        if node.get("GPU", 0) >= 1:
            types |= {key.removeprefix(TYPE) for key in node if key.startswith(TYPE)} or {"unknown"}
    return sorted(types)
