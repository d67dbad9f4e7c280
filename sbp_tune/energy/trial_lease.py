"""The lease of a Ray trial: all that Ray gave it, each GPU by its UUID, whatever of it the trial computes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sbp_tune.config import EnergyConfig
from sbp_tune.energy.devices import trial_gpus
from sbp_tune.energy.node_actor import NodeLease
from sbp_tune.energy.nvml import system_nvml


def trial_lease(
    given: Mapping[str, Any],
    config: EnergyConfig,
    bundle: Mapping[str, float] | None,
    used: Sequence[str] = (),
    cpus: float = 1,
) -> NodeLease:
    """Not begun yet; for any trainable, on the process in which its trial runs.

    given: `lease` of the trial's config; bundle: what Ray gave it (`self.trial_resources.bundles[0]`), None outside of
    Ray Tune, where it is `used`, UUIDs of the GPUs that it computes on, and so many cpus. SbpTuneError where it
    computes on a GPU that it was not given.
    """
    gpus, fraction = list(used), 1.0
    if bundle is not None:
        count, cpus = bundle.get("GPU", 0.0), bundle.get("CPU", cpus)
        fraction = min(1.0, count) or 1.0
        if system_nvml().uuids():  # else they have no other name than what torch calls them, or are none
            gpus = trial_gpus(count, assigned=_assigned(), used=used)
    return NodeLease(given["folder"], given["trial"], given["attempt"], config, dict.fromkeys(gpus, fraction), cpus)


def _assigned() -> list[str]:
    import ray

    return list(ray.get_runtime_context().get_accelerator_ids()["GPU"])
