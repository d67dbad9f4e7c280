"""What every counter offers: the parts of the machine whose energy it knows, and their joules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from sbp_tune.energy.reading import Source

CPU = "cpu"
DRAM = "dram"
PSYS = "psys"  # the whole board where its firmware tells; holds the others


@dataclass(frozen=True)
class Part:
    """How the energy of one part of the machine is known.

    name: of the hardware; source: see `Component`; uncertainty: relative, of a window long against `update_s`,
    None with source `none`; boundary: what is inside the number, in words; limit_w: most power it can draw, W;
    update_s: period in which the reading changes, so that each edge of a window may be late by as much;
    reason: why there is no source, or why there is no better one; included_in: the part whose joules hold these
    too, so that adding a model would count them twice.
    """

    name: str
    source: Source
    uncertainty: float | None
    boundary: str
    limit_w: float | None = None
    update_s: float = 0.0
    reason: str | None = None
    included_in: str | None = None


def unmeasured(name: str, boundary: str, reason: str) -> Part:
    """A part without source: it has no joules, which is not 0 J."""
    return Part(name, "none", None, boundary, reason=reason)


class Counter(Protocol):
    """Energy of some parts of the machine. Not thread-safe.

    parts: by name: `cpu`, `dram`, or the UUID of a GPU; sampled: whether `sample` must be called every
    `UPDATE_PERIOD_S`. Times are those of the clock that gave the constructor its `now`, and never decrease.
    """

    parts: dict[str, Part]
    sampled: bool

    def sample(self, now: float) -> None:
        """Takes one reading of what has to be summed up; a failure is kept for `joules`."""

    def joules(self, part: str, now: float) -> float | None:
        """Energy of a part, J, never decreasing; only differences mean anything. None if its source is `none`.

        SbpTuneError if the part can no longer be read, and for a reading that cannot be true.
        """
