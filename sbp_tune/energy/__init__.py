"""Energy of one run: what a counter measured, what a formula modelled, and never the two confused."""

from sbp_tune.energy.meter import EnergyMeter
from sbp_tune.energy.reading import Component, Reading

__all__ = ["Component", "EnergyMeter", "Reading"]
