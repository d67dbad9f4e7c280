"""A node's ledger on its way to object storage, which knows no appending and is sometimes away.

The meter writes into a folder of its own machine, each record on the disk before it is told to anybody, and a thread
copies what is new: a segment that has ended once, the one that grows again and again. What a crash left in the folder
is copied by the next meter on this machine.
"""

from __future__ import annotations

import socket
import threading
from pathlib import Path

from sbp_tune.energy.repeater import Repeater
from sbp_tune.errors import SbpTuneError
from sbp_tune.remote import Remote, state_folder

PERIOD_S = 10.0
LAST_S = 10.0
"""How long the end of a meter waits for the last copy."""


def spool_folder(uri: str) -> Path:
    """Where a machine keeps its ledgers of a study whose folder of ledgers is at a URI."""
    return state_folder(uri, "spool")


class Spool:
    """Copies the ledgers in this machine's folder to a URI, whenever `copy` is called."""

    def __init__(self, uri: str) -> None:
        self.folder, self._remote = spool_folder(uri), Remote(uri)
        self._sent: dict[str, int] | None = None  # bytes, by name
        self._copying = threading.Lock()

    def copy(self) -> None:
        """Copies what is new. StorageError where the storage is away; then the next call has more to copy."""
        with self._copying:
            files = sorted(self.folder.glob("ledger-*.jsonl"))
            if files and self._sent is None:
                self._sent = {name: entry.size for name, entry in self._remote.files().items()}
            for file in files:
                assert self._sent is not None
                size = file.stat().st_size
                if size > self._sent.get(file.name, 0):
                    self._remote.upload(file, file.name)
                    self._sent[file.name] = size


class Spooling:
    """A spool at work in the background, until `stop`."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._repeater = Repeater(PERIOD_S, self._try)

    def stop(self) -> str | None:
        """Copies the last of the ledger; in one line, what could not be. The meter must have let go of it."""
        last: list[bool] = []
        thread = threading.Thread(target=lambda: last.append(self._end()), daemon=True)
        thread.start()
        thread.join(LAST_S)
        if last == [True]:
            return None
        return (
            f"the end of the energy ledger of {socket.gethostname()} is not at {self._spool._remote} yet; it lies in "
            f"{self._spool.folder} there, and the next search or `sbp-tune report` of this study there copies it"
        )

    def _end(self) -> bool:
        self._repeater.stop()  # waits for a copy that is on its way
        return self._try()

    def _try(self) -> bool:
        try:
            self._spool.copy()
        except (SbpTuneError, OSError):
            return False
        return True
