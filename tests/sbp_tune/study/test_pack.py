"""A packed study reads as the study does, and names no machine."""

import json
import sqlite3
from contextlib import closing

import pandas as pd
import pytest

from sbp_tune.errors import InputError, SbpTuneError
from sbp_tune.files import write_text_atomic, yaml_text
from sbp_tune.study.epochs import append_row
from sbp_tune.study.lock import only_writer
from sbp_tune.study.pack import pack
from sbp_tune.study.results import confirmation_path, load_study
from sbp_tune.study.searcher import OptunaSearcher, enqueue_fixed_points
from sbp_tune.study.storage import create_study

MACHINE = {"hostname": "secret-host", "node_ip": "192.0.2.7", "pid": 4242}


def make(path, study, storage="sqlite"):
    """A study of two finished trials, by hand, with what Ray leaves beside them."""
    path.mkdir(parents=True)
    study.document["search"]["storage"] = storage
    write_text_atomic(path / "study.yaml", yaml_text(study.document))
    enqueue_fixed_points(create_study(path, "demo", study.objectives, {"versions": {"torch": "2.11"}}), study)
    searcher = OptunaSearcher(study, path)
    for number in range(2):
        searcher.suggest(f"t{number}")
        row = {"epoch": 1, "val_accuracy": 0.5, "kwh": 1e-6, "loss": 1.0, "fully_trained": True, "done": True}
        append_row(path, {**row, "device": "cpu", "trial_id": f"t{number}", **MACHINE})
        searcher.on_trial_complete(f"t{number}", row)
    (path / "ray" / "t0").mkdir(parents=True)
    (path / "ray" / "t0" / "checkpoint").write_bytes(bytes(10**6))
    (path / "report.html").write_text("secret-host")
    return path


@pytest.fixture
def study(tmp_path, make_study):
    path = make(tmp_path / "demo", make_study())
    (path / "energy").mkdir()
    (path / "energy" / "ledger-n-0000.jsonl").write_text("")
    (path / "energy" / ".ledger-n.lock").write_text("")
    (path / "confirmed.csv").write_text("trial\n")
    make(confirmation_path(path), make_study())
    return path


def test_a_copy_reads_as_the_study(study, tmp_path):
    copy = pack(study, tmp_path / "shared" / "copy")
    for one, other in ((study, copy), (confirmation_path(study), confirmation_path(copy))):
        before, after = load_study(one), load_study(other)
        pd.testing.assert_frame_equal(before.trials, after.trials)
        pd.testing.assert_frame_equal(before.epochs, after.epochs)
        assert (before.name, before.study, before.versions) == (after.name, after.study, after.versions)
        assert before.configs == after.configs and len(after.epochs) == 2
    files = {str(file.relative_to(copy)) for file in copy.rglob("*") if file.is_file()}
    assert files == {
        *(f"{folder}{name}" for folder in ("", "confirm/") for name in ("study.yaml", "study.db", "epochs.jsonl")),
        "energy/ledger-n-0000.jsonl",
        "confirmed.csv",
    }
    assert list((tmp_path / "shared").iterdir()) == [copy]


def test_no_machine_is_named(study, tmp_path):
    copy = pack(study, tmp_path / "copy")
    held = b"".join(file.read_bytes() for file in copy.rglob("*") if file.is_file())
    assert b"secret-host" in (study / "epochs.jsonl").read_bytes()
    for word in (b"secret-host", b"192.0.2.7", b"hostname", b"pid"):
        assert word not in held
    rows = [json.loads(line) for line in (copy / "epochs.jsonl").read_text().splitlines()]
    assert [row["trial_id"] for row in rows] == ["t0", "t1"]


def test_a_journal_is_copied_too(tmp_path, make_study):
    path = make(tmp_path / "journal", make_study(), storage="journal")
    copy = pack(path, tmp_path / "copy")
    pd.testing.assert_frame_equal(load_study(path).trials, load_study(copy).trials)


def test_what_cannot_be_packed_is_said_and_nothing_is_left(study, tmp_path):
    before = set(tmp_path.iterdir())
    with only_writer(study), pytest.raises(SbpTuneError, match="another process runs this study"):
        pack(study, tmp_path / "copy")
    with pytest.raises(InputError, match="is there already"):
        pack(study, study)
    with pytest.raises(InputError, match="not a study directory"):
        pack(tmp_path, tmp_path / "copy")
    text = (study / "study.yaml").read_text()
    (study / "study.yaml").write_text(text.replace("storage: sqlite", "storage: postgresql://me@host/trials"))
    with pytest.raises(InputError, match=r"in a database \(postgresql://me@host/trials\)"):
        pack(study, tmp_path / "copy")
    assert set(tmp_path.iterdir()) == before


def test_the_copied_database_is_whole(study, tmp_path):
    with closing(sqlite3.connect(pack(study, tmp_path / "copy") / "study.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
