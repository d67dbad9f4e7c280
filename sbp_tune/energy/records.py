"""The lines of an energy ledger: what a node's meter saw, raw, so that every bill can be made again from it.

Times are seconds of the node's monotonic clock, `wall` is Unix time. Counters (joules, CPU seconds, busy seconds)
only ever grow between two inventories and may start anywhere. `None` is a counter that could not be read, never 0.
A restarted meter on the same boot may start any counter afresh, except a GPU's of source `counter`.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

from sbp_tune.energy.reading import Source
from sbp_tune.errors import SbpTuneError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

Reason = Literal["finished", "stopped", "failed", "died"]

# pydantic's settings: "1" is not a number, and neither is NaN. Fields of a newer version are passed over.
_STRICT: Final[dict[str, Any]] = {"strict": True, "allow_inf_nan": False}


@dataclass(frozen=True)
class GpuInfo:
    """One GPU.

    limit_w: power limit, W; uncertainty: relative, of its source; idle_w: W when nothing runs, where known;
    update_s: how late a reading may be.
    """

    name: str
    limit_w: float | None
    source: Source
    uncertainty: float | None
    idle_w: float | None = None
    update_s: float = 0.1
    __pydantic_config__ = _STRICT

    def __post_init__(self) -> None:
        _check_source(f"GPU {self.name}", self.source, self.uncertainty)


@dataclass(frozen=True)
class Inventory:
    """A meter (re)starts on a node: what it can read, and the coefficients for what it cannot.

    boot: names the boot of the machine, since which monotonic time runs; time, wall: when the meter started; gpus: by
    NVML UUID, also those of source `none`; cpus: logical cores; cpu_idle_w: W of an idle core, cpu_busy_w: W more
    when it is busy (see `models`), with RAPL the former alone is used; ram_gb: installed memory, GB (1e9 bytes);
    cpu_limit_w: what no mean power of all packages can exceed; cpu_included_in, ram_included_in: the GPU whose number
    holds theirs, on a board that is measured as a whole. One with the same boot and time is no restart: a segment of
    a ledger begins so, and so does a power limit that has been changed.
    """

    node: str
    boot: str
    time: float
    wall: float
    gpus: dict[str, GpuInfo]
    cpus: int
    cpu_source: Source
    cpu_uncertainty: float | None
    cpu_idle_w: float
    cpu_busy_w: float
    ram_source: Source
    ram_uncertainty: float | None
    ram_w_per_gb: float
    ram_gb: float
    cpu_limit_w: float | None = None
    cpu_included_in: str | None = None
    ram_included_in: str | None = None
    kind: Literal["inventory"] = "inventory"
    __pydantic_config__ = _STRICT

    def __post_init__(self) -> None:
        _check_source("the processor", self.cpu_source, self.cpu_uncertainty)
        _check_source("the memory", self.ram_source, self.ram_uncertainty)
        if self.cpus < 1 or not self.ram_gb > 0 or min(self.cpu_idle_w, self.cpu_busy_w, self.ram_w_per_gb) < 0:
            raise SbpTuneError(
                f"inventory of {self.node}: needs a core, memory and no negative coefficient; "
                f"found cpus={self.cpus}, ram_gb={self.ram_gb:g}, cpu_idle_w={self.cpu_idle_w:g}, "
                f"cpu_busy_w={self.cpu_busy_w:g}, ram_w_per_gb={self.ram_w_per_gb:g}"
            )


@dataclass(frozen=True)
class LeaseUse:
    """What the process tree of a lease has used: CPU seconds with reaped children, GB resident now.

    gpu_busy_s: seconds in which a kernel of it ran, by UUID; None or absent where that cannot be told.
    """

    cpu_s: float
    memory_gb: float
    gpu_busy_s: dict[str, float | None] = field(default_factory=dict)
    __pydantic_config__ = _STRICT


@dataclass(frozen=True)
class Snapshot:
    """All counters of a node at one time, taken every second and at every lease edge.

    gpu_j: J by UUID; cpu_j: all RAPL packages, unwrapped; dram_j: likewise; busy_cpu_s: core seconds of the whole
    machine; used_gb: memory in use on it; leases: every open lease, and at its edges the one that opens or closes;
    gpu_power_j: power readings summed over time beside a counter, to check it by; failures: what could no longer be
    read and why, by device, at least once.
    """

    time: float
    wall: float
    gpu_j: dict[str, float | None]
    cpu_j: float | None
    dram_j: float | None
    busy_cpu_s: float
    used_gb: float
    leases: dict[str, LeaseUse]
    gpu_power_j: dict[str, float | None] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    kind: Literal["snapshot"] = "snapshot"
    __pydantic_config__ = _STRICT


@dataclass(frozen=True)
class LeaseOpened:
    """A trial takes its share of the node, in a lease of its own for each attempt.

    lease: never used again; trial: None for what is the search's own; gpus: fraction of each, above 0 to 1; cpus:
    reserved cores; continued_epoch: epochs finished in the checkpoint it continues from, 0 for a fresh start.
    """

    lease: str
    trial: str | None
    attempt: int
    time: float
    gpus: dict[str, float]
    cpus: float
    pid: int
    continued_epoch: int = 0
    kind: Literal["lease_opened"] = "lease_opened"
    __pydantic_config__ = _STRICT

    def __post_init__(self) -> None:
        for uuid, fraction in self.gpus.items():
            if not 0 < fraction <= 1:
                raise SbpTuneError(f"lease {self.lease}: {fraction:g} of GPU {uuid}: a fraction is above 0, at most 1")
        if self.cpus < 0 or self.continued_epoch < 0:
            raise SbpTuneError(
                f"lease {self.lease}: cpus and continued_epoch must be at least 0; "
                f"found {self.cpus:g} and {self.continued_epoch}"
            )


@dataclass(frozen=True)
class LeaseClosed:
    """A lease ends; `died`: its process was found gone, and `time` is that of the last snapshot which saw it."""

    lease: str
    time: float
    reason: Reason
    kind: Literal["lease_closed"] = "lease_closed"
    __pydantic_config__ = _STRICT


@dataclass(frozen=True)
class EpochMark:
    """A trial has finished so many epochs; checkpointed: it can continue from here."""

    lease: str
    time: float
    epoch: int
    checkpointed: bool
    kind: Literal["epoch"] = "epoch"
    __pydantic_config__ = _STRICT


@dataclass(frozen=True)
class Gap:
    """From `start` to `end`, Unix time, nobody metered the node, or what was written is lost."""

    start: float
    end: float
    reason: str
    kind: Literal["gap"] = "gap"
    __pydantic_config__ = _STRICT


Record: TypeAlias = Inventory | Snapshot | LeaseOpened | LeaseClosed | EpochMark | Gap


def encode(record: Record) -> str:
    """One line of JSON; `decode` gives an equal record. SbpTuneError for a number that is not finite."""
    try:
        return json.dumps(dataclasses.asdict(record), allow_nan=False, separators=(",", ":"))
    except ValueError as error:
        raise SbpTuneError(f"{record.kind} record cannot be written: {error}: {record}") from error


def decode(text: str | bytes) -> Record:
    """The record of a line of JSON; SbpTuneError for a kind that is not known, a missing field or a wrong type.

    Fields that are not known are passed over: a newer version may add what an older one need not understand.
    """
    from pydantic import ValidationError

    try:
        return _adapter().validate_json(text)
    except ValidationError as error:
        raise SbpTuneError(f"not a ledger record: {_first_problem(error.errors(include_url=False))}") from error


@functools.cache
def _adapter() -> TypeAdapter[Record]:
    from typing import Annotated

    from pydantic import Field, TypeAdapter  # 0.1 s that only a reader of ledgers needs

    return TypeAdapter(Annotated[Record, Field(discriminator="kind")])


def _first_problem(errors: list[Any]) -> str:
    first = errors[0]
    if first["type"] == "union_tag_invalid":
        known = ", ".join(record.kind for record in get_args(Record))
        return f"kind {first['ctx']['tag']!r} is none of {known}; was it written by a newer sbp-tune?"
    where = ".".join(str(part) for part in first["loc"])
    more = f" (and {len(errors) - 1} more problems)" if len(errors) > 1 else ""
    return f"{where}: {first['msg']}{more}" if where else f"{first['msg']}{more}"


def _check_source(what: str, source: Source, uncertainty: float | None) -> None:
    if (source == "none") != (uncertainty is None) or (uncertainty is not None and uncertainty < 0):
        raise SbpTuneError(
            f"{what}: source {source!r} with uncertainty {uncertainty}: a source has an uncertainty, `none` has none"
        )
