"""Energy of what has no readable counter: two coefficients for the processor, one for the memory.

The coefficients are assumptions, not measurements, and EnergyConfig carries them. Order of magnitude: Cloud Carbon
Footprint's averages of server benchmarks give 0.74 W idle and 3.5 W busy per vCPU (a hardware thread, half a core)
and 0.392 W per GB; eco2AI uses 3/8 W per GB, from 3 W for an 8 GB module. Linear in CPU time, so that
a run's number does not depend on its neighbours; a formula in the load of the whole machine would.
"""

from __future__ import annotations

CPU_IDLE_W = 10.0
CPU_BUSY_W = 6.0
RAM_W_PER_GB = 0.375

# CodeCarbon's models were up to 40 % away from an external meter (arXiv 2509.22092); ours is no better founded.
MODEL_UNCERTAINTY = 0.5


def cpu_joules(seconds: float, cpu_seconds: float, idle_share: float, idle_w: float, busy_w: float) -> float:
    """Processor energy, J, of a run that keeps `idle_share` (0 to 1) of the cores for itself.

    seconds: wall time; cpu_seconds: of its processes; idle_w: W of the idle processor; busy_w: W per busy core.
    """
    return idle_w * idle_share * seconds + busy_w * cpu_seconds


def ram_joules(gb_seconds: float, w_per_gb: float) -> float:
    """Memory energy, J; gb_seconds: resident memory (1 GB = 1e9 bytes) integrated over time."""
    return w_per_gb * gb_seconds
