"""A function called again and again in the background."""

from __future__ import annotations

import inspect
import threading
import weakref
from collections.abc import Callable


class Repeater:
    """Calls `function` every `period` seconds on a daemon thread, from construction until `stop`.

    It keeps no method's object alive: once nobody has that, as a meter that was never stopped, the thread ends.
    """

    def __init__(self, period: float, function: Callable[[], object]) -> None:
        self._stopped = threading.Event()
        find = weakref.WeakMethod(function) if inspect.ismethod(function) else lambda: function
        self._thread = threading.Thread(
            target=_run, args=(period, find, self._stopped), name="energy-meter", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Returns when no call is running and none will follow."""
        self._stopped.set()
        self._thread.join()


def _run(period: float, find: Callable[[], Callable[[], object] | None], stopped: threading.Event) -> None:
    while not stopped.wait(period):
        function = find()
        if function is None:
            return
        function()
        del function  # while it waits, it must not hold the object either
