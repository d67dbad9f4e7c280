from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sbp_tune.energy import ledger as ledger_module
from sbp_tune.energy.ledger import Damage, LedgerWriter, read_ledger
from sbp_tune.energy.records import EpochMark, Gap, GpuInfo, Inventory, LeaseOpened, LeaseUse, Snapshot
from sbp_tune.errors import SbpTuneError

UUID = "GPU-1a6f2f0c-8a2d-4b7e-9d9b-0c4b2f6e7a11"
WALL = 1.7e9


def inventory(node: str = "alpha", time: float = 0.0) -> Inventory:
    gpu = {UUID: GpuInfo("Tesla T4", 70.0, "counter", 0.1)}
    return Inventory(node, "boot", time, WALL + time, gpu, 4, "model", 0.5, 0.74, 2.76, "model", 0.5, 0.392, 16.0)


def snapshot(second: float) -> Snapshot:
    leases = {"lease-1": LeaseUse(second, 1.5, {UUID: None})}
    return Snapshot(second, WALL + second, {UUID: 40.0 * second}, None, None, second, 4.0, leases)


def write(folder: Path, count: int, *, first: int = 1, node: str = "alpha", **options) -> None:
    with LedgerWriter(folder, inventory(node, first - 1), **options) as writer:
        for second in range(first, first + count):
            writer.append(snapshot(second))


def seconds(records) -> list[float]:
    return [record.time for record in records if isinstance(record, Snapshot)]


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.jsonl"))


def test_a_ledger_comes_back_in_order(tmp_path):
    opened = LeaseOpened("lease-1", "trial-é", 1, 0.5, {UUID: 1.0}, 2, 42)
    with LedgerWriter(tmp_path / "new" / "folder", inventory()) as writer:
        writer.append(opened)
        writer.append(snapshot(1))
    assert list(read_ledger(tmp_path / "new" / "folder")) == [inventory(), opened, snapshot(1)]


def test_a_line_is_plain_json_and_numbered(tmp_path):
    write(tmp_path, 2)
    lines = [json.loads(line) for line in segments(tmp_path)[0].read_text().splitlines()]
    assert [line["n"] for line in lines] == [0, 1, 2]
    assert lines[1]["record"]["kind"] == "snapshot"


def test_each_record_is_on_the_disk_before_append_returns(tmp_path, monkeypatch):
    synced: list[int] = []
    monkeypatch.setattr(ledger_module.os, "fsync", lambda file: synced.append(os.fstat(file).st_size))
    with LedgerWriter(tmp_path, inventory()) as writer:
        for second in range(1, 4):
            writer.append(snapshot(second))
            assert synced[-1] == segments(tmp_path)[0].stat().st_size
            assert seconds(read_ledger(tmp_path)) == list(range(1, second + 1))


def test_closed_segments_never_change(tmp_path):
    with LedgerWriter(tmp_path, inventory(), segment_bytes=1500) as writer:
        contents: dict[Path, bytes] = {}
        for second in range(1, 40):
            writer.append(snapshot(second))
            closed = segments(tmp_path)[:-1]
            for path in closed:
                assert contents.setdefault(path, path.read_bytes()) == path.read_bytes()
    assert len(contents) > 5
    assert all(len(content) <= 1500 for content in contents.values())
    assert seconds(read_ledger(tmp_path)) == list(range(1, 40))


def test_any_segment_can_be_read_alone(tmp_path):
    write(tmp_path, 40, segment_bytes=1500)
    for number, path in enumerate(segments(tmp_path)):
        alone = tmp_path / f"alone-{number}"
        alone.mkdir()
        shutil.copy(path, alone)
        damage: list[Damage] = []
        first, *rest = read_ledger(alone, damage)
        assert first == inventory()
        assert seconds(rest)
        if number:
            assert "are missing" in damage[0].problem
            assert isinstance(rest[0], Gap)


def test_cut_at_every_byte_it_loses_one_record_at_most(tmp_path):
    folder = tmp_path / "whole"
    write(folder, 6, segment_bytes=1500)
    last = segments(folder)[-1]
    whole = last.read_bytes()
    ends = [position + 1 for position, byte in enumerate(whole) if byte == ord("\n")]
    before = len(list(read_ledger(folder))) - len(ends)
    for cut in range(len(whole) + 1):
        last.write_bytes(whole[:cut])
        found = list(read_ledger(folder))  # raises for damage
        complete = sum(end - 1 <= cut for end in ends)  # a line that lacks only its newline is complete
        assert len(found) == before + complete
        assert seconds(found) == list(range(1, len(seconds(found)) + 1))


def test_cut_at_every_byte_it_can_be_continued(tmp_path):
    folder = tmp_path / "whole"
    write(folder, 3)
    whole = segments(folder)[0].read_bytes()
    for cut in range(0, len(whole) + 1, 7):
        copy = tmp_path / str(cut)
        copy.mkdir()
        (copy / segments(folder)[0].name).write_bytes(whole[:cut])
        kept = seconds(read_ledger(copy))
        write(copy, 2, first=11)
        found = list(read_ledger(copy))
        assert seconds(found) == [*kept, 11, 12]
        assert sum(isinstance(record, Gap) for record in found) == (cut >= whole.index(b"\n"))


@given(st.data())
@settings(deadline=None)
def test_any_changed_byte_is_reported_and_all_other_records_are_there(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("ledger")
    write(folder, 12, segment_bytes=1500)
    path = data.draw(st.sampled_from(segments(folder)))
    content = bytearray(path.read_bytes())
    position = data.draw(st.integers(0, len(content) - 2))  # the last newline: see the cuts
    content[position] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    damage: list[Damage] = []
    found = list(read_ledger(folder, damage))
    assert len(damage) >= 1
    assert damage[0].file == path
    lost = set(range(1, 13)) - set(seconds(found))
    assert len(lost) <= 2  # two if a newline was hit
    assert seconds(found) == sorted(set(seconds(found)))
    with pytest.raises(SbpTuneError, match=rf"{path.name}:\d+: "):
        list(read_ledger(folder))


def test_damage_in_the_middle_is_reported_with_its_line_and_leaves_a_gap(tmp_path):
    write(tmp_path, 5)
    path = segments(tmp_path)[0]
    lines = path.read_bytes().splitlines(keepends=True)
    lines[3] = lines[3].replace(b'"busy_cpu_s":3', b'"busy_cpu_s":9')
    path.write_bytes(b"".join(lines))
    damage: list[Damage] = []
    found = list(read_ledger(tmp_path, damage))
    assert damage == [Damage(path, 4, "the checksum does not match: the line was changed")]
    assert seconds(found) == [1, 2, 4, 5]
    gap = found[3]
    assert isinstance(gap, Gap)
    assert (gap.start, gap.end) == (WALL + 2, WALL + 4)
    assert path.name in gap.reason


def test_missing_segments_are_reported_and_leave_a_gap(tmp_path):
    write(tmp_path, 40, segment_bytes=1500)
    paths = segments(tmp_path)
    for path in paths[2:4]:
        path.unlink()
    damage: list[Damage] = []
    found = list(read_ledger(tmp_path, damage))
    assert len(damage) == 1
    assert damage[0].file == paths[4]
    assert "are missing" in str(damage[0])
    gaps = [record for record in found if isinstance(record, Gap)]
    at = found.index(gaps[0])
    assert len(gaps) == 1
    assert found[at - 1] == inventory()  # says whose gap it is


def test_a_copy_that_was_taken_early_lacks_records_in_the_middle(tmp_path):
    write(tmp_path, 20, segment_bytes=3000)
    first = segments(tmp_path)[0]
    first.write_bytes(first.read_bytes()[:1500])
    with pytest.raises(SbpTuneError, match="records 3 to 7 are missing"):
        list(read_ledger(tmp_path))


def test_a_ledger_of_a_newer_version_says_so(tmp_path):
    write(tmp_path, 1)
    rest = b'"n":2,"record":{"kind":"battery"}}'
    with segments(tmp_path)[0].open("ab") as file:
        file.write(b'{"crc32":"%08x",%s\n' % (ledger_module.zlib.crc32(rest), rest))
    with pytest.raises(SbpTuneError, match="written by a newer sbp-tune"):
        list(read_ledger(tmp_path))


def test_a_ledger_that_does_not_begin_with_its_node_is_reported_once(tmp_path):
    write(tmp_path, 5)
    path = segments(tmp_path)[0]
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"x" + b"".join(lines))
    damage: list[Damage] = []
    assert list(read_ledger(tmp_path, damage)) == []
    assert len(damage) == 1


def test_a_second_writer_is_refused_until_the_first_is_done(tmp_path):
    with LedgerWriter(tmp_path, inventory()) as writer:
        writer.append(snapshot(1))
        with pytest.raises(SbpTuneError, match="another meter writes the ledger of node alpha"):
            LedgerWriter(tmp_path, inventory())
        LedgerWriter(tmp_path, inventory("beta")).close()
        writer.append(snapshot(2))
    with pytest.raises(SbpTuneError, match="closed"):
        writer.append(snapshot(3))
    write(tmp_path, 1, first=3)


def test_a_writer_may_be_used_and_closed_from_another_thread(tmp_path):
    writer = LedgerWriter(tmp_path, inventory())
    thread = threading.Thread(target=lambda: (writer.append(snapshot(1)), writer.close()))
    thread.start()
    thread.join()
    write(tmp_path, 1, first=2)


def test_going_on_leaves_a_visible_gap_and_a_new_segment(tmp_path):
    write(tmp_path, 3)
    before = segments(tmp_path)[0].read_bytes()
    write(tmp_path, 2, first=11)
    assert [path.name for path in segments(tmp_path)] == ["ledger-alpha-0000.jsonl", "ledger-alpha-0001.jsonl"]
    assert segments(tmp_path)[0].read_bytes() == before
    found = list(read_ledger(tmp_path))
    assert found[4:6] == [inventory(time=10), Gap(WALL + 3, WALL + 10, "the meter did not run")]
    assert seconds(found) == [1, 2, 3, 11, 12]


def test_nodes_are_read_one_after_the_other(tmp_path):
    with LedgerWriter(tmp_path, inventory("beta")) as beta, LedgerWriter(tmp_path, inventory("alpha-0001")) as alpha:
        for second in range(1, 4):
            beta.append(snapshot(second))
            alpha.append(snapshot(10 + second))
    found = list(read_ledger(tmp_path))
    assert [record.node for record in found if isinstance(record, Inventory)] == ["alpha-0001", "beta"]
    assert seconds(found) == [11, 12, 13, 1, 2, 3]
    assert seconds(read_ledger(tmp_path, node="beta")) == [1, 2, 3]
    assert list(read_ledger(tmp_path, node="alpha")) == []


def test_an_inventory_that_changed_begins_the_segments_after_it(tmp_path):
    with LedgerWriter(tmp_path, inventory(), segment_bytes=1500) as writer:
        writer.append(inventory(time=5))
        for second in range(6, 20):
            writer.append(snapshot(second))
    found = [record for record in read_ledger(tmp_path) if isinstance(record, Inventory)]
    assert found[0] == inventory()
    assert len(found) > 3
    assert all(record == inventory(time=5) for record in found[1:])


def test_a_copy_of_a_growing_folder_can_be_read_at_any_moment(tmp_path):
    folder, copied = tmp_path / "ledger", tmp_path / "copy"
    copied.mkdir()
    with LedgerWriter(folder, inventory(), segment_bytes=1500) as writer:
        for second in range(1, 30):
            writer.append(snapshot(second))
            for path in segments(folder)[-2:]:  # those before have been copied whole
                shutil.copy(path, copied)
            assert seconds(read_ledger(copied)) == list(range(1, second + 1))


def test_a_full_disk_loses_a_record_and_says_so(tmp_path, monkeypatch):
    with LedgerWriter(tmp_path, inventory()) as writer:
        writer.append(snapshot(1))
        with monkeypatch.context() as patch:
            whole_write = os.write
            patch.setattr(ledger_module.os, "write", lambda file, data: whole_write(file, data[:50]))
            with pytest.raises(SbpTuneError, match="a ledger record was lost: only 50 of"):
                writer.append(snapshot(2))
        writer.append(snapshot(3))
    damage: list[Damage] = []
    found = list(read_ledger(tmp_path, damage))
    assert seconds(found) == [1, 3]
    assert damage[0].problem == "records 2 to 2 are missing"


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SbpTuneError, match="file: no ledger can be written here"):
        LedgerWriter(tmp_path / "file", inventory())


def test_a_node_that_is_no_file_name_is_refused(tmp_path):
    with pytest.raises(SbpTuneError, match="node 'rack/1'"):
        LedgerWriter(tmp_path, inventory("rack/1"))


def test_a_folder_without_a_ledger_is_empty(tmp_path):
    assert list(read_ledger(tmp_path / "nowhere")) == []


def test_a_number_that_cannot_be_written_costs_nothing_else(tmp_path):
    with LedgerWriter(tmp_path, inventory()) as writer:
        with pytest.raises(SbpTuneError, match="cannot be written"):
            writer.append(snapshot(float("nan")))
        writer.append(EpochMark("lease-1", 1.0, 1, True))
    assert len(list(read_ledger(tmp_path))) == 2


WRITER = """
    import sys
    from pathlib import Path
    from sbp_tune.energy.ledger import LedgerWriter
    from sbp_tune.energy.records import decode
    inventory, snapshot = (decode(line) for line in Path(sys.argv[2]).read_text().splitlines())
    import dataclasses
    with LedgerWriter(sys.argv[1], inventory, segment_bytes=20000) as writer:
        second = 0
        while True:
            second += 1
            writer.append(dataclasses.replace(snapshot, time=float(second)))
            print(second, flush=True)
"""


@pytest.mark.parametrize("records", [1, 7, 120])
def test_kill_9_loses_nothing_that_append_returned_for(tmp_path, records):
    from sbp_tune.energy.records import encode

    folder, given_records = tmp_path / "ledger", tmp_path / "records"
    given_records.write_text(f"{encode(inventory())}\n{encode(snapshot(1))}\n")
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITER), folder, given_records], stdout=subprocess.PIPE, text=True
    ) as child:
        for line in child.stdout:
            if int(line) >= records:
                break
        with pytest.raises(SbpTuneError, match="another meter"):
            LedgerWriter(folder, inventory())
        child.send_signal(signal.SIGKILL)
        said = [int(line) for line in child.stdout.read().splitlines()]
    last = max([records, *said])
    found = seconds(read_ledger(folder))
    assert found in (list(range(1, last + 1)), list(range(1, last + 2)))
    write(folder, 1, first=10_000)  # the lock went with the process
    assert seconds(read_ledger(folder)) == [*found, 10_000]
