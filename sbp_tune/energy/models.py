"""Energy of what has no readable counter: two coefficients for the processor, one for the memory.

The coefficients are averages, not measurements of this machine, and EnergyConfig carries them: Cloud Carbon
Footprint's, from SPECpower results of servers, 0.74 W idle and 3.5 W busy per vCPU (a hardware thread, as the
operating system counts cores) and 0.392 W per GB. Linear in CPU time, so that a run's number does not depend on
its neighbours; a formula in the load of the whole machine would.
"""

from __future__ import annotations

CPU_IDLE_W = 0.74
CPU_BUSY_W = 2.76
RAM_W_PER_GB = 0.392

# CodeCarbon's models were up to 40 % away from an external meter (arXiv 2509.22092); ours is no better founded.
MODEL_UNCERTAINTY = 0.5


def cpu_joules(seconds: float, cpu_seconds: float, cores: float, idle_w: float, busy_w: float) -> float:
    """Processor energy, J, of a run that keeps so many logical cores for itself.

    seconds: wall time; cpu_seconds: of its processes; idle_w: W of an idle core; busy_w: W more when it is busy.
    """
    return idle_w * cores * seconds + busy_w * cpu_seconds


def ram_joules(gb_seconds: float, w_per_gb: float) -> float:
    """Memory energy, J; gb_seconds: resident memory (1 GB = 1e9 bytes) integrated over time."""
    return w_per_gb * gb_seconds
