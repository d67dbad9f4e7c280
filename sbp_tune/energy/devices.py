"""Which GPUs a run uses, as NVML UUIDs: the one name of a device that all tools share; and the processor's name.

Ray and torch are not imported: what they say comes in as plain data.
"""

from __future__ import annotations

import functools
import math
import os
import platform
import re
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path

from sbp_tune.energy.nvml import Nvml, system_nvml
from sbp_tune.errors import SbpTuneError


def trial_gpus(
    count: float,
    *,
    assigned: Sequence[object] | None = None,
    used: Sequence[object] = (),
    environ: Mapping[str, str] = os.environ,
    nvml: Nvml | None = None,
) -> list[str]:
    """UUIDs of the GPUs that a trial is to be billed, by the best evidence there is.

    count: GPUs it holds, perhaps a part of one; 0 for a CPU trial, which gets none whatever its environment says.
    assigned: what Ray gave it (`get_accelerator_ids()["GPU"]`), all of which it holds; else used: what the trial's
    own torch calls the devices it computes on; else what `environ` shows it. SbpTuneError if it computes on a GPU
    that it was not given, for one that is not there, and for another number than `count`: nothing is guessed.
    """
    if count <= 0:
        return []
    nvml = nvml or system_nvml()
    given = None if assigned is None else assigned_gpus(assigned, environ, nvml)
    mine = [_present(nvml_uuid(device), nvml) for device in used]
    if mine and given is not None and not set(mine) <= set(given):
        raise SbpTuneError(f"the trial computes on {_list(mine)}, but was given {_list(given)}")
    found = list(dict.fromkeys(given if given is not None else mine or resolve_gpus(environ, nvml)))
    if len(found) != math.ceil(count):
        raise SbpTuneError(f"a trial with {count:g} GPUs, but found {_list(found)}: name those that it computes on")
    return found


def assigned_gpus(
    ids: Sequence[object], environ: Mapping[str, str] = os.environ, nvml: Nvml | None = None
) -> list[str]:
    """UUIDs of the GPUs that Ray assigned: numbers, as int or text, UUIDs or their prefixes.

    Ray's numbers are the machine's own, whatever the trial's CUDA_VISIBLE_DEVICES: Ray has already looked up the
    one it was started with. SbpTuneError for one that is not there: unlike CUDA, Ray has no use for a list that
    ends early.
    """
    nvml = nvml or system_nvml()
    entries = [str(entry).strip() for entry in ids]
    if any(entry.isdecimal() for entry in entries):
        _check_order(environ, nvml)
    return list(dict.fromkeys(_assigned(entry, nvml) for entry in entries))


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


def name_gpus_by_uuid(environ: MutableMapping[str, str] = os.environ, nvml: Nvml | None = None) -> None:
    """Makes CUDA_VISIBLE_DEVICES name by UUID what Ray has named by number, and CUDA count as NVML does.

    For a process in which CUDA has not begun. Nothing else changes: UUIDs, an empty list, numbers of no GPU here.
    """
    environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    entries = [entry.strip() for entry in environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    if not all(entry.isdecimal() for entry in entries):
        return
    uuids = (nvml or system_nvml()).uuids()
    if all(int(entry) < len(uuids) for entry in entries):
        environ["CUDA_VISIBLE_DEVICES"] = ",".join(uuids[int(entry)] for entry in entries)


def nvml_uuid(device: object) -> str:
    """NVML's form of a UUID; torch.cuda.get_device_properties(i).uuid comes without the `GPU-`."""
    text = str(device)
    return text if text.startswith(("GPU-", "MIG-")) else f"GPU-{text}"


@functools.cache
def cpu_name(file: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name and model number, which is all that tells some virtual ones apart; else its architecture."""
    lines = file.read_text().splitlines() if file.is_file() else []
    found = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    if "model name" not in found:
        return f"cpu {platform.machine()}".strip()
    name = " ".join(re.sub(r"\((R|TM)\)", "", found["model name"]).split())
    return f"{name} (model {found['model']})" if "model" in found else name


def _assigned(entry: str, nvml: Nvml) -> str:
    uuids = nvml.uuids()
    uuid = _by_index(entry, uuids) if entry.isdecimal() else _by_uuid(entry, uuids)
    if uuid is None:
        raise SbpTuneError(f"GPU {entry!r} was assigned, but there is no such GPU (GPUs: {_list(uuids)})")
    return uuid


def _present(uuid: str, nvml: Nvml) -> str:
    """The UUID, if it is of a GPU or an instance here, or if NVML knows none at all, as on some Jetsons."""
    if uuid not in nvml.uuids() and nvml.uuids() and not nvml.mig(uuid):
        raise SbpTuneError(f"GPU {uuid} is not on this machine (GPUs: {_list(nvml.uuids())})")
    return uuid


def _list(uuids: Sequence[str]) -> str:
    return ", ".join(uuids) or "none"


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
