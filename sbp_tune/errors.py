"""The one exception root, and what each child means for the exit code."""

from __future__ import annotations

from collections.abc import Iterable


class SbpTuneError(Exception):
    """The job failed. The message is one line that a user can act on. Exit code 1."""

    exit_code = 1


class MeterError(SbpTuneError):
    """Energy can no longer be metered, so every run would fail."""


class StorageError(SbpTuneError):
    """Results can no longer be kept: the disk is full, the database is gone. Every run would fail."""


class OutOfMemory(SbpTuneError):  # noqa: N818 - as torch and Python call it
    """A run that does not fit into the memory of its device; a smaller one may."""


class EpochTimeout(SbpTuneError):  # noqa: N818 - what happened, as the others
    """An epoch took longer than it may, and the process that it ran in was killed."""


class InputError(SbpTuneError):
    """What the user gave cannot be used: exit code 2, and nothing was written.

    Holds every problem found, one line each, so that a file is mended in one go.
    """

    exit_code = 2

    def __init__(self, problems: str | Iterable[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))

    def __reduce__(self) -> tuple[type, tuple[list[str]]]:  # crosses Ray's process boundary whole
        return type(self), (self.problems,)


class DataError(InputError):
    """The data cannot be used, so every run on it would fail."""
