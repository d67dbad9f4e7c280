"""optuna-dashboard on the storage of a study: `sbp-tune dashboard`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from sbp_tune.errors import InputError
from sbp_tune.study.storage import check_directory, open_study


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a page asks every few seconds."""


def serve_dashboard(path: Path, port: int, say: Callable[[str], None] = print) -> None:
    """Serves the dashboard to this machine alone until it is interrupted; port 0: any that is free.

    InputError where optuna-dashboard is not installed or the port is taken.
    """
    check_directory(path)
    try:
        from optuna_dashboard import wsgi
    except ImportError as error:
        raise InputError(f"the dashboard is not installed ({error}): pip install 'sbp-tune[dashboard]'") from error
    study = open_study(path)
    try:
        server = make_server("127.0.0.1", port, wsgi(study._storage), _Server, _Quiet)
    except OSError as error:
        raise InputError(f"--port {port}: {error.strerror or error}; give another") from error
    with server, suppress(KeyboardInterrupt):
        say(f"http://127.0.0.1:{server.server_port}/dashboard/studies/{study._study_id}   (Ctrl-C ends it)")
        server.serve_forever()
