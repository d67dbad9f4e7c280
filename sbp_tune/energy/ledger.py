"""The energy ledger of a node: a folder of append-only segments that survives a crash at any byte.

A line is `{"crc32":"…","n":17,"record":{…}}`: JSON, its number on this node, and a checksum of all that follows the
checksum. A segment, `ledger-<node>-<NNNN>.jsonl`, begins with the node's inventory, so that it can be read without
the ones before, and once the next has begun it never changes: a folder may be copied while it grows, and only its
last segment again.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout

from sbp_tune.energy.records import Gap, Inventory, Record, Snapshot, decode, encode
from sbp_tune.errors import SbpTuneError

SEGMENT_BYTES = 1 << 20  # a quarter of an hour to half an hour of a node with four trials

_NODE = re.compile(r"[A-Za-z0-9._-]+")
_SEGMENT = re.compile(r"ledger-(?P<node>[A-Za-z0-9._-]+)-(?P<number>\d{4,})\.jsonl")
_LINE = re.compile(
    rb'\{"crc32":"(?P<crc>[0-9a-f]{8})",(?P<rest>"n":(?P<n>\d+),"record":(?P<record>\{.*\})\})', re.DOTALL
)


@dataclass(frozen=True)
class Damage:
    """Something in a ledger that cannot be read; line: from 1, 0 for what is missing before the file."""

    file: Path
    line: int
    problem: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.problem}"


class LedgerWriter:
    """The one writer of a node's ledger; not thread-safe.

    Each `append` is on the disk when it returns. A folder that already holds records of the node is continued in
    a new segment, behind a Gap. SbpTuneError if another writer has the node, and for what cannot be written; a
    failed append loses that record, the next one begins a new segment.
    """

    def __init__(self, folder: Path | str, inventory: Inventory, segment_bytes: int = SEGMENT_BYTES) -> None:
        if not _NODE.fullmatch(inventory.node):
            raise SbpTuneError(f"node {inventory.node!r}: a ledger's node is named with letters, digits and . _ - only")
        self._folder, self._inventory, self._segment_bytes = Path(folder), inventory, segment_bytes
        self._file: int | None = None
        self._lock = FileLock(self._folder / f".ledger-{inventory.node}.lock", timeout=0, thread_local=False)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except Timeout:
            raise SbpTuneError(f"{self._folder}: another meter writes the ledger of node {inventory.node}") from None
        except OSError as error:
            raise SbpTuneError(f"{self._folder}: no ledger can be written here: {error}") from error
        try:
            self._continue()
        except BaseException:
            self.close()
            raise

    def append(self, record: Record) -> None:
        """Writes one record, behind all others."""
        if not self._lock.is_locked:
            raise SbpTuneError(f"{self._folder}: this ledger has been closed")
        size = len(_line(self._n, record))  # fails before anything is written
        if isinstance(record, Inventory):
            self._inventory = record
        if self._file is None or self._size + size > self._segment_bytes:
            self._begin_segment()
            if isinstance(record, Inventory):
                return
        self._write(record)

    def close(self) -> None:
        """Lets the next writer in. Calling it again changes nothing."""
        self._end_segment()
        self._lock.release()

    def __enter__(self) -> LedgerWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _continue(self) -> None:
        segments = _segments(self._folder).get(self._inventory.node, {})
        self._segment, self._n = max(segments, default=-1), 0
        last: float | None = None
        for number in sorted(segments, reverse=True):  # the last one may be empty, or torn in its first line
            reader = _NodeReader([])
            for _ in reader.records([segments[number]]):
                pass
            if reader.wall is not None:
                last, self._n = reader.wall, reader.expected
                break
        self._begin_segment()
        if last is not None:
            self.append(Gap(last, self._inventory.wall, "the meter did not run"))

    def _begin_segment(self) -> None:
        self._end_segment()
        self._segment += 1
        path = self._folder / f"ledger-{self._inventory.node}-{self._segment:04d}.jsonl"
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o666)
            self._size = 0
            _sync_folder(self._folder)
        except OSError as error:
            raise SbpTuneError(f"{path}: cannot be written: {error}") from error
        self._write(self._inventory)

    def _end_segment(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _write(self, record: Record) -> None:
        assert self._file is not None
        line = _line(self._n, record)
        self._n += 1  # also of a record that fails: the number shows that it is missing
        try:
            written = os.write(self._file, line)
            if written < len(line):
                raise OSError(f"only {written} of {len(line)} bytes were written")
            os.fsync(self._file)
        except OSError as error:
            self._end_segment()  # what it left is a torn last line, which readers know
            raise SbpTuneError(f"{self._folder}: a ledger record was lost: {error}") from error
        self._size += len(line)


def read_ledger(folder: Path | str, damage: list[Damage] | None = None, node: str | None = None) -> Iterator[Record]:
    """All records in a folder, or those of one node, in the order written; each node's begin with an Inventory.

    A torn last line is passed over: whoever wrote it died. All else that cannot be read or is missing (damaged
    lines, segments not copied) is added to `damage`, with a Gap among the records in its place; without such a list
    the first one raises SbpTuneError. Safe beside a writer; the file may end anywhere.
    """
    segments = _segments(Path(folder))
    for name in sorted(segments) if node is None else [node]:
        paths = segments.get(name, {})
        yield from _NodeReader(damage).records([paths[number] for number in sorted(paths)])


class _NodeReader:
    """Reads the segments of one node; wall: Unix time of the last record, expected: the number of the next."""

    def __init__(self, damage: list[Damage] | None) -> None:
        self.wall: float | None = None
        self.expected = 0
        self._damage = damage
        self._lost: str | None = None  # why records are missing here
        self._clock = 0.0  # Unix time less monotonic time

    def records(self, paths: list[Path]) -> Iterator[Record]:
        for path in paths:
            for number, line in enumerate(_lines(path), start=1):
                yield from self._read(path, number, line)

    def _read(self, path: Path, number: int, line: bytes) -> Iterator[Record]:
        try:
            n, record = _parse(line)
        except SbpTuneError as error:
            if line.endswith(b"\n"):
                self._report(Damage(path, number, str(error)))
            return
        if n != self.expected and self._lost is None:
            what = f"records {self.expected} to {n - 1} are missing" if n > self.expected else f"record {n} again"
            self._report(Damage(path, number - 1, what))
        self.expected = n + 1
        if self.wall is None and not isinstance(record, Inventory):  # a record of which nothing is known is no use
            if self._lost is None:
                self._report(Damage(path, number, f"a {record.kind} record without an inventory before it"))
            return
        before, after = self.wall, self._wall_of(record)
        gap = Gap(before if before is not None else after, after, self._lost) if self._lost is not None else None
        self._lost = None
        self.wall = after
        if gap is None:
            yield record
        elif isinstance(record, Inventory):  # which says whose gap it is
            yield from (record, gap)
        else:
            yield from (gap, record)

    def _report(self, damage: Damage) -> None:
        if self._damage is None:
            raise SbpTuneError(str(damage))
        self._damage.append(damage)
        self._lost = self._lost or f"lost: {damage.file.name}:{damage.line}: {damage.problem}"

    def _wall_of(self, record: Record) -> float:
        if isinstance(record, Gap):
            return record.end
        if isinstance(record, (Inventory, Snapshot)):
            self._clock = record.wall - record.time
        return record.time + self._clock


def _line(n: int, record: Record) -> bytes:
    rest = f'"n":{n},"record":{encode(record)}}}'.encode()
    return b'{"crc32":"%08x",%s\n' % (zlib.crc32(rest), rest)


def _parse(line: bytes) -> tuple[int, Record]:
    match = _LINE.fullmatch(line.removesuffix(b"\n"))
    if match is None:
        raise SbpTuneError("not a line of a ledger")
    if zlib.crc32(match["rest"]) != int(match["crc"], 16):
        raise SbpTuneError("the checksum does not match: the line was changed")
    return int(match["n"]), decode(match["record"])


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            yield from file
    except OSError as error:
        raise SbpTuneError(f"{path}: cannot be read: {error}") from error


def _segments(folder: Path) -> dict[str, dict[int, Path]]:
    """Paths by node and number; empty for a folder that is not there."""
    found: dict[str, dict[int, Path]] = {}
    for path in folder.glob("ledger-*.jsonl"):
        if match := _SEGMENT.fullmatch(path.name):
            found.setdefault(match["node"], {})[int(match["number"])] = path
    return found


def _sync_folder(folder: Path) -> None:
    """A new file's name must survive a power failure as its content does."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
