"""A function called again and again in the background."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Repeater:
    """Calls `function` every `period` seconds on a daemon thread, from construction until `stop`."""

    def __init__(self, period: float, function: Callable[[], object]) -> None:
        self._period = period
        self._function = function
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="energy-meter", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Returns when no call is running and none will follow."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(self._period):
            self._function()
