"""sbp-tune: the commands. Each imports what it needs when it runs, so that --help answers at once."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

from sbp_tune.commands import app

for _module in (
    "searching",
    "reading",
    "tables",
    "exporting",
    "single",
):  # in the order of --help; importing one enters its commands
    import_module(f"sbp_tune.commands.{_module}")


@app.callback()
def main() -> None:
    """Search for the sparse-backpropagation schedule with the most accuracy per measured kWh."""
    # As for `python -m`: `module:Class` may name a model or a trainable of the working directory.
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))


if __name__ == "__main__":
    sys.exit(app())
