"""An S3 server of the tests' own, and a wire to it that can be cut."""

from __future__ import annotations

import logging
import socket
import threading
from contextlib import suppress
from typing import Any
from urllib.request import Request, urlopen

KEYS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}

_RESET = "/moto-api/reset-auth"


class ObjectStorage:
    """moto's server on a port of its own."""

    def __init__(self) -> None:
        from moto.server import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import make_server

        logging.getLogger("werkzeug").setLevel(logging.CRITICAL)  # a line for each request
        self._app, self._strangers = DomainDispatcherApplication(create_backend_app), True
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _answer(self, environ: dict[str, Any], start: Any) -> Any:
        if not self._strangers and "HTTP_AUTHORIZATION" not in environ and environ["PATH_INFO"] != _RESET:
            start("403 Forbidden", [("Content-Type", "application/xml")])  # as S3; moto fails with a KeyError
            return [b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"]
        return self._app(environ, start)

    def client(self, service: str = "s3") -> Any:
        import boto3

        return boto3.client(
            service,
            endpoint_url=f"http://127.0.0.1:{self.port}",
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )

    def uri(self, bucket: str, port: int | None = None) -> str:
        return f"s3://{bucket}/studies?endpoint_override=127.0.0.1:{port or self.port}&scheme=http"

    def let_in(self, strangers: bool) -> None:
        """Whether requests are served without looking at their keys, as a fresh server does."""
        self._strangers, count = strangers, b"inf" if strangers else b"0"
        url, kind = f"http://127.0.0.1:{self.port}{_RESET}", {"Content-Type": "text/plain"}
        urlopen(Request(url, count, kind, method="POST")).close()

    def stop(self) -> None:
        self._server.shutdown()


class Wire:
    """A port that leads to another one, until it is cut; mended it is the same port again."""

    def __init__(self, port: int) -> None:
        self._target = port
        self.port = 0
        self.mend()

    def mend(self) -> None:
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def cut(self) -> None:
        """Refuses who comes, and drops who is there."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for end in self._open:
            end.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                here, _ = listener.accept()
                there = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                return
            self._open += [here, there]
            for source, target in ((here, there), (there, here)):
                threading.Thread(target=_carry, args=(source, target), daemon=True).start()


def _carry(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
