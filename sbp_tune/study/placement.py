"""Where trials would run: how many fit on each node, and the error when none does."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from sbp_tune.energy.devices import resolve_gpus
from sbp_tune.energy.nvml import Nvml, system_nvml
from sbp_tune.errors import InputError
from sbp_tune.study.demand import TYPE, Demand, Nodes, places, types_of
from sbp_tune.study.file import Study
from sbp_tune.study.sections import OF_THE_DEVICE


def room(study: Study, nodes: Iterable[Mapping[str, float]]) -> int:
    """How many of its trials nodes with such resources hold at a time, of the smallest where they differ."""
    nodes = list(nodes)
    return max(sum(places(node, demand) for node in nodes) for demand in study.demands())


def trials_at_a_time(study: Study, nodes: Nodes, autoscaled: int = 0) -> int:
    """How many trials run at once on these nodes, those of the smallest where they differ.

    autoscaled: how many would, if all machines ran that an autoscaler may start. InputError, instead of waiting for
    ever, where one fits on no node; or where GPUs are of several types.
    """
    problems = []
    most = max(room(study, nodes.values()), autoscaled)
    for demand, models in study.demands().items():
        if not autoscaled and not any(places(node, demand) for node in nodes.values()):
            of_some = len(study.demands()) > 1
            where = f"resources.models.{', '.join(models)}" if of_some else "resources"
            problems.append(f"{study.source}: {where}: {_does_not_fit(demand, nodes)}")
    if problems:
        raise InputError(problems)
    check_one_type(study, nodes)
    return min(most, study.file.search.concurrent or most)


def holds(study: Study, node: Mapping[str, float]) -> str:
    """How many of its trials a node holds at a time, in words: '4 trials', or '2 (vgg19) to 4 (resnet18) trials'."""
    counts = {", ".join(models): places(node, demand) for demand, models in study.demands().items()}
    low, high = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
    if counts[low] == counts[high]:
        return f"{counts[low]} trials"
    return f"{counts[low]} ({low}) to {counts[high]} ({high}) trials"


def gpu_types(study: Study, nodes: Nodes) -> list[str]:
    """Types of the GPUs on which its trials can run; none where no trial takes one."""
    demands = [demand for demand in study.demands() if demand.gpu > 0]
    if demands and demands[0].accelerator_type is not None:
        return [demands[0].accelerator_type]
    return types_of({name: node for name, node in nodes.items() if any(places(node, demand) for demand in demands)})


def compares_devices(study: Study) -> bool:
    """Whether the search ranks trials by something that depends on the device."""
    constrained = {constraint.column for constraint in study.constraints}
    return not {*study.objectives, *constrained}.isdisjoint(OF_THE_DEVICE)


def check_one_type(study: Study, nodes: Nodes) -> None:
    """InputError where trials could run on GPUs of several types, and are ranked by what differs between these."""
    if not compares_devices(study):
        return
    names = ", ".join(name for name in study.objectives if name in OF_THE_DEVICE) or "search.constraints"
    if len(types := gpu_types(study, nodes)) > 1:
        raise InputError(
            f"{study.source}: resources.accelerator_type: missing; the machines have GPUs of {len(types)} types, on "
            f"which {names} does not compare; needs one of {', '.join(types)}"
        )
    for name, node in nodes.items() if types else ():
        if len(of_node := types_of({name: node})) > 1:  # Ray knows a node by one type
            raise InputError(
                f"{study.source}: {name} has GPUs of {len(of_node)} types ({', '.join(of_node)}), on which {names} "
                "does not compare; set CUDA_VISIBLE_DEVICES to those of one type"
            )


def _does_not_fit(demand: Demand, nodes: Nodes) -> str:
    typed = "" if demand.accelerator_type is None else f" of type {demand.accelerator_type}"
    cpus, gpus = (sum(node.get(kind, 0) for node in nodes.values()) for kind in ("CPU", "GPU"))
    types = f" (types: {', '.join(types_of(nodes))})" if typed and gpus else ""
    return (
        f"a trial asks for cpu {demand.cpu} and gpu {demand.gpu:g}{typed} on one node, but Ray has {cpus:g} CPUs and "
        f"{gpus:g} GPUs{types} on {len(nodes)} node{'s' if len(nodes) != 1 else ''}"
    )


def local_nodes(nvml: Nvml | None = None) -> Nodes:
    """This machine as a local Ray would see it, without starting one; GPUs of another type than the first too."""
    nvml = nvml or system_nvml()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    gpus = resolve_gpus({**os.environ, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, nvml)
    types = {TYPE + accelerator_type(nvml.name(uuid)): 1.0 for uuid in gpus if uuid in nvml.uuids()}
    return {"this machine": {"CPU": float(cores), "GPU": float(len(gpus)), **types}}


def accelerator_type(name: str) -> str:
    """What Ray calls the type of a GPU of this name: T4 for a Tesla T4."""
    from ray._private.accelerators.nvidia_gpu import NvidiaGPUAcceleratorManager

    return NvidiaGPUAcceleratorManager._gpu_name_to_accelerator_type(name) or name


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
