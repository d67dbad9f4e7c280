"""Which GPUs a run uses, as NVML UUIDs: the one name of a device that all tools share."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from sbp_tune.energy.nvml import Nvml, system_nvml
from sbp_tune.errors import SbpTuneError


def resolve_gpus(environ: Mapping[str, str] = os.environ, nvml: Nvml | None = None) -> list[str]:
    """UUIDs of the GPUs that CUDA shows to a process with this environment, in CUDA's order.

    Only for a run that uses a GPU: without CUDA_VISIBLE_DEVICES these are all GPUs of the machine. A MIG
    instance is returned as it stands (`MIG-...`). SbpTuneError where CUDA's order cannot be known.
    CUDA's rules (CUDA C Programming Guide, environment variables; torch.cuda._parse_visible_devices): entries
    are indices, or UUIDs or their unique prefixes; the list ends at the first invalid entry; a repeated entry
    makes it empty.
    """
    nvml = nvml or system_nvml()
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return nvml.uuids()
    entries = [entry.strip() for entry in visible.split(",")]
    by_index = not entries[0].startswith(("GPU-", "MIG-"))
    if by_index:
        _check_order(environ, nvml)
    found: list[str] = []
    for entry in entries:
        uuid = _by_index(entry, nvml.uuids()) if by_index else _by_uuid(entry, nvml.uuids())
        if uuid is None:
            break
        if uuid in found:
            return []
        found.append(uuid)
    return found


def nvml_uuid(device: object) -> str:
    """NVML's form of a UUID; torch.cuda.get_device_properties(i).uuid comes without the `GPU-`."""
    text = str(device)
    return text if text.startswith(("GPU-", "MIG-")) else f"GPU-{text}"


def _by_index(entry: str, uuids: list[str]) -> str | None:
    digits = re.match(r"\+?(\d+)", entry)  # as C's strtoul: 1x is 1, NoDevFiles is nothing
    if digits is None or int(digits[1]) >= len(uuids):
        return None
    return uuids[int(digits[1])]


def _by_uuid(entry: str, uuids: list[str]) -> str | None:
    if entry.startswith("MIG-"):
        return entry
    matches = [uuid for uuid in uuids if entry.startswith("GPU-") and uuid.startswith(entry)]
    return matches[0] if len(matches) == 1 else None


def _check_order(environ: Mapping[str, str], nvml: Nvml) -> None:
    """CUDA numbers unlike GPUs fastest first unless told otherwise; NVML always numbers them by PCI bus."""
    names = {gpu.name for gpu in nvml.inventory()}
    if len(names) > 1 and environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
        raise SbpTuneError(
            f"GPU numbers are ambiguous among different GPUs ({', '.join(sorted(names))}): "
            "set CUDA_DEVICE_ORDER=PCI_BUS_ID, or use UUIDs in CUDA_VISIBLE_DEVICES"
        )
