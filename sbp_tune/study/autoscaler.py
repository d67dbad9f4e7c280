"""What Ray's autoscaler may add to a cluster that `ray up` started: machines that come once a trial waits."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sbp_tune.files import read_yaml
from sbp_tune.study.demand import Demand, Nodes, places

CONFIG = Path("~/ray_bootstrap_config.yaml")
"""`ray up` puts it on the head, with the resources of every machine type; Ray itself knows such a cluster by it."""


def autoscaled_machines(config: Path = CONFIG) -> Nodes:
    """The machines that an autoscaler may start, each type as often as it may, by name; none without an autoscaler."""
    document = _document(config)
    return {
        f"{name} {number + 1}": kind.get("resources", {})
        for name, kind in document.get("available_node_types", {}).items()
        if name != document.get("head_node_type")
        for number in range(kind.get("max_workers", document.get("max_workers", 0)))
    }


def autoscaled_places(demands: Iterable[Demand], config: Path = CONFIG) -> int:
    """How many trials the machines of an autoscaler hold when all run that may; 0 where there is no autoscaler.

    demands: what trials take; of unlike ones the smallest counts. At least 1 where there is one: what its machines
    hold need not be known, and a trial that waits brings one.
    """
    document = _document(config)
    if not document:
        return 0
    machines, most = autoscaled_machines(config).values(), document.get("max_workers", 0)
    each = [sorted((places(machine, demand) for machine in machines), reverse=True)[:most] for demand in demands]
    return max(1, *map(sum, each))


def _document(config: Path) -> dict[str, Any]:
    config = config.expanduser()
    return read_yaml(config) if config.is_file() else {}
