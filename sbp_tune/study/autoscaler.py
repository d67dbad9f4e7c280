"""What Ray's autoscaler may add to a cluster that `ray up` started: machines that come once a trial waits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sbp_tune.files import read_yaml
from sbp_tune.study.placement import places
from sbp_tune.study.sections import ResourcesConfig

CONFIG = Path("~/ray_bootstrap_config.yaml")
"""`ray up` puts it on the head, with the resources of every machine type; Ray itself knows such a cluster by it."""


def autoscaled_places(resources: ResourcesConfig, config: Path = CONFIG) -> int:
    """How many trials the machines of an autoscaler hold when all run that may; 0 where there is no autoscaler.

    At least 1 where there is one: what its machines hold need not be known, and a trial that waits brings one.
    """
    config = config.expanduser()
    if not config.is_file():
        return 0
    document: dict[str, Any] = read_yaml(config)
    most = document.get("max_workers", 0)
    each = [
        places(kind.get("resources", {}), resources)
        for name, kind in document.get("available_node_types", {}).items()
        if name != document.get("head_node_type")
        for _ in range(kind.get("max_workers", most))
    ]
    return max(1, sum(sorted(each, reverse=True)[:most]))
