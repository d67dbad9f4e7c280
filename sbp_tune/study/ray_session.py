"""A Ray to run on, quiet, and telling nobody of its use."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sbp_tune.errors import InputError, SbpTuneError
from sbp_tune.study.autoscaler import autoscaled_machines

# Ray tells its makers about its use unless told not to; read when ray is imported.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# Ray's newer output prints banners whatever the verbosity; ours is in progress.py.
os.environ["RAY_AIR_NEW_OUTPUT"] = "0"


METRICS_PORT = "SBP_TUNE_METRICS_PORT"
"""Environment variable: the port on which a Ray of this machine's own serves its metrics; else any that is free."""


@contextmanager
def connected_ray(address: str | None) -> Iterator[None]:
    """A Ray to run on: the cluster at an address, or one of this machine's own; InputError where none answers."""
    import ray

    for name in ("ray", "ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # a failed trial is told in one line by progress.py
    if ray.is_initialized():  # somebody's notebook, or a test: theirs to end
        yield
        return
    local: dict[str, Any] = {"include_dashboard": False, "object_store_memory": 256 * 2**20} if address is None else {}
    if address is None and METRICS_PORT in os.environ:
        local["_metrics_export_port"] = _port(os.environ[METRICS_PORT])
    try:
        _check_answers(address)
        ray.init(address or "local", logging_level=logging.ERROR, log_to_driver=False, **local)
    except OSError as error:  # ConnectionError is one
        raise InputError(f"--address {address}: no Ray cluster answers there: {error}") from error
    except Exception as error:  # Ray raises a bare Exception when a node does not come up in time
        raise SbpTuneError(f"Ray did not start: {' '.join(str(error).split())}") from error
    try:
        yield
    finally:
        ray.shutdown()


def cluster_in_use(address: str | None) -> str | None:
    """The address given, or without one that of a cluster that this process, a notebook's say, is connected to.

    A connected Ray of this machine alone is none: data and machines are looked at here.
    """
    import ray

    if address is not None or not ray.is_initialized():
        return address
    is_cluster = sum(node["Alive"] for node in ray.nodes()) > 1 or autoscaled_machines()
    return ray.get_runtime_context().gcs_address if is_cluster else None


def _port(text: str) -> int:
    if not (text.isdecimal() and 1024 <= int(text) <= 65535):
        raise InputError(f"{METRICS_PORT}: found {text!r}; needs a port from 1024 to 65535")
    return int(text)


def _check_answers(address: str | None) -> None:
    """OSError where nothing listens at HOST:PORT; Ray itself would wait for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()
