"""Who watches a search: its own log, Ray's metrics, and the trackers that the study file names."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sbp_tune.errors import SbpTuneError
from sbp_tune.study.event_log import EventLog
from sbp_tune.study.file import Study
from sbp_tune.study.prometheus import Prometheus
from sbp_tune.study.storage import open_study
from sbp_tune.study.trackers import make_trackers
from sbp_tune.study.versions import versions
from sbp_tune.study.watching import Watching


@contextmanager
def watched(path: Path) -> Iterator[Watching]:
    """A callback for Ray that tells the watchers, also of an error that ends the block."""
    watching = Watching(path)
    try:
        yield watching
    except BaseException as error:
        with suppress(OSError, SbpTuneError):  # a disk that is full has no room for it either
            watching.break_off(error)
        raise


def begin(watching: Watching, study: Study, path: Path, concurrent: int, kwh: Callable[[], float]) -> None:
    """Tells all who watch that a start of the study begins. kwh: what all its trials have used by then."""

    def warn(line: str) -> None:
        print(f"warning: {line}", file=sys.stderr)
        watching.say("warning", line)

    name, storage = study.file.name, open_study(path)
    resumed = bool(storage.user_attrs.get("starts"))
    trackers = make_trackers(study.file.search.trackers, name, path, warn)
    facts = {
        "resumed": resumed,
        "trials": study.total_trials,
        "concurrent": concurrent,
        "objectives": study.objectives,
        "sampler": study.sampler,
        "scheduler": study.file.search.scheduler,
        "storage": study.file.search.storage,
        "simulated": study.file.simulate is not None,
        "versions": versions() if resumed else storage.user_attrs.get("versions", {}),
        "nodes": _nodes(),
    }
    watching.begin([EventLog(path, name), Prometheus(study, path, kwh), *trackers], facts)


def _nodes() -> list[dict[str, Any]]:
    """The machines of the Ray that is connected, and where Prometheus finds each."""
    import ray

    nodes = []
    for node in ray.nodes():
        if node["Alive"]:
            address, port = node["NodeManagerAddress"], node.get("MetricsExportPort", 0)
            has = {name: node["Resources"][name] for name in ("CPU", "GPU") if name in node["Resources"]}
            metrics = {"metrics": f"http://{address}:{port}/metrics"} if port > 0 else {}
            nodes.append({"hostname": node["NodeManagerHostname"], "address": address, **has, **metrics})
    return nodes
