"""Search for the sparse-backpropagation schedule with the most accuracy per measured kWh."""

__version__ = "0.1.0"
