"""A trainable as Ray's tuner takes it: each trial with what its model takes, and with its GPUs by UUID."""

from __future__ import annotations

from typing import Any

from ray.tune import PlacementGroupFactory

from sbp_tune.energy.devices import name_gpus_by_uuid
from sbp_tune.study.demand import AVOIDED, demand_of
from sbp_tune.study.file import Study


def placed(trainable: type, study: Study) -> type:
    """The class with what `ray.tune.with_resources` would give it, and GPUs that are named before CUDA looks at them.

    A process is used again for trials that take the same alone.
    """
    resources = study.resources

    class Placed(trainable):
        @classmethod
        def default_resource_request(cls, config: dict[str, Any]) -> PlacementGroupFactory:
            avoided = config.get("lease", {}).get(AVOIDED)
            labels = {"bundle_label_selector": [{"ray.io/node-id": f"!in({','.join(avoided)})"}]} if avoided else {}
            return PlacementGroupFactory([demand_of(resources, config["model"]["name"]).bundle], **labels)

        def setup(self, config: dict[str, Any], **parameters: Any) -> None:
            name_gpus_by_uuid()
            super().setup(config, **parameters)

    Placed.__name__, Placed.__qualname__ = trainable.__name__, trainable.__qualname__  # as Ray and `top` show it
    return Placed
