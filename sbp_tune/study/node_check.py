"""Asks a node of a cluster whether trials can run there: the packages of the driver, and room on its disk."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from sbp_tune import __version__

LEAST_DISK = 100e6
"""Bytes that a node's disk for temporary files must have left: a checkpoint is written there on its way."""

_COMPARED = ("sbp-tune", "torch")  # Ray itself refuses another Ray or Python


def ask(node: str, trainable: str) -> Any:
    """A reference to a node's answer, by Ray's id of it: plain data for `problem_of`. trainable: `module:Class`."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    def answer(module: str) -> dict[str, Any]:  # in here, so that it travels whole: this package may be missing there
        import importlib.metadata
        import importlib.util
        import os
        import shutil
        import tempfile
        from pathlib import Path

        # `gettempdir` passes over a disk that is full, to one that running trials do not use.
        named = next(filter(None, map(os.environ.get, ("TMPDIR", "TEMP", "TMP"))), "/tmp")
        disk = named if Path(named).is_dir() else tempfile.gettempdir()
        found: dict[str, Any] = {"disk": disk, "free": shutil.disk_usage(disk).free}
        try:
            from sbp_tune import __version__

            found |= {"sbp-tune": __version__, "torch": importlib.metadata.version("torch")}
            if importlib.util.find_spec(module) is None:
                found["missing"] = f"No module named {module!r}"
        except ImportError as error:
            found["missing"] = str(error)
        return found

    here = NodeAffinitySchedulingStrategy(node, soft=False)
    remote = ray.remote(answer).options(num_cpus=0, max_retries=0, scheduling_strategy=here)
    return remote.remote(trainable.partition(":")[0])


def problem_of(answer: dict[str, Any]) -> str | None:
    """Why no trial can run on the node that gave this answer, and what to do; None where trials can."""
    if "missing" in answer:
        install = f"install sbp-tune {__version__}, and what the study's trainable needs, there"
        return f"{answer['missing']}; {install}, and start Ray on it again"
    for name in _COMPARED:
        here = __version__ if name == "sbp-tune" else version(name)
        if _plain(answer[name]) != _plain(here):
            return f"it has {name} {answer[name]}, and the driver {here}; install the same there"
    if answer["free"] < LEAST_DISK:
        return f"{answer['disk']} is full ({answer['free'] / 1e6:.0f} MB left); make room there"
    return None


def _plain(number: str) -> str:
    """A version without the part that says for which hardware it was built."""
    return number.partition("+")[0]
