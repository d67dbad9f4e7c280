import dataclasses

import pytest

from sbp_tune.energy.ledger import LedgerWriter
from sbp_tune.energy.records import EpochMark, Inventory, LeaseClosed, LeaseOpened, LeaseUse, Snapshot
from sbp_tune.study.ledger import ledger_folder, study_bill
from sbp_tune.study.results import load_study
from sbp_tune.study.searcher import OptunaSearcher, enqueue_fixed_points
from sbp_tune.study.storage import create_study

INVENTORY = Inventory(
    node="n",
    boot="b",
    time=0.0,
    wall=1e9,
    gpus={},
    cpus=4,
    cpu_source="model",
    cpu_uncertainty=0.5,
    cpu_idle_w=1.0,
    cpu_busy_w=9.0,
    ram_source="model",
    ram_uncertainty=0.5,
    ram_w_per_gb=0.0,
    ram_gb=16.0,
)
KWH = 3.6e6


def snapshot(time, **cpu_s):
    """On one core that is always busy; CPU seconds by lease."""
    leases = {lease: LeaseUse(seconds, 1.0) for lease, seconds in cpu_s.items()}
    return Snapshot(time, 1e9 + time, {}, None, None, time, 1.0, leases)


def crashed_and_resumed():
    """Trial 0 used its core for 30 s, of which 10 s came after its last checkpoint; then 20 s more."""
    return [
        LeaseOpened("a", "0", 0, 10.0, {}, 1, 1),
        snapshot(10.0, a=0.0),
        EpochMark("a", 30.0, 1, True),
        snapshot(30.0, a=20.0),
        snapshot(40.0, a=30.0),
        LeaseClosed("a", 40.0, "died"),
        LeaseOpened("b", "0", 1, 50.0, {}, 1, 2, continued_epoch=1),
        snapshot(50.0, b=0.0),
        EpochMark("b", 70.0, 2, True),
        LeaseClosed("b", 70.0, "finished"),
        snapshot(70.0, b=20.0),
    ]


@pytest.fixture
def written(tmp_path):
    def write(records):
        with LedgerWriter(ledger_folder(tmp_path), INVENTORY) as writer:
            for record in records:
                writer.append(record)
        return tmp_path

    return write


def test_a_study_without_ledger_has_no_bill(tmp_path):
    assert study_bill(tmp_path) is None


def test_attempts_add_up_and_waste_is_said(written):
    bill, problems = study_bill(written([snapshot(0.0), *crashed_and_resumed()]))
    trial = bill.trials["0"]
    assert problems == () and trial.kwh == pytest.approx(50 * 10 / KWH)
    assert trial.kwh_wasted == pytest.approx(10 * 10 / KWH)
    assert trial.kwh + bill.idle.kwh + bill.other.kwh == pytest.approx(bill.machine.kwh)


def test_damage_is_told_and_the_rest_is_billed(written):
    path = written([snapshot(0.0), *crashed_and_resumed(), snapshot(80.0)])
    [segment] = ledger_folder(path).glob("*.jsonl")
    lines = segment.read_bytes().splitlines(keepends=True)
    lines[6] = lines[6].replace(b"40.0", b"41.0")
    segment.write_bytes(b"".join(lines))
    bill, problems = study_bill(path)
    assert any("the checksum does not match" in problem for problem in problems) and len(bill.gaps) == 1
    assert bill.trials["0"].kwh == pytest.approx(40 * 10 / KWH)  # what the lost reading would have added is not made up


def test_a_last_line_that_was_cut_is_no_damage(written):
    path = written([snapshot(0.0), *crashed_and_resumed()])
    [segment] = ledger_folder(path).glob("*.jsonl")
    segment.write_bytes(segment.read_bytes()[:-5])
    assert study_bill(path).problems == ()


def test_readings_that_cannot_be_true_have_no_bill(written):
    backwards = dataclasses.replace(snapshot(80.0), busy_cpu_s=1.0)
    bill, [problem] = study_bill(written([snapshot(0.0), *crashed_and_resumed(), backwards]))
    assert bill is None and "went backwards" in problem


def test_the_table_has_all_attempts_and_what_was_wasted(written, make_study):
    path = written([snapshot(0.0), *crashed_and_resumed()])
    study = make_study()
    (path / "study.yaml").write_text("name: demo\nobjectives: {val_accuracy: max, kwh: min}\n")
    enqueue_fixed_points(create_study(path, "demo", study.objectives, {}), study)
    searcher = OptunaSearcher(study, path)
    searcher.suggest("first")
    row = load_study(path).trials.iloc[0]
    assert row["kwh"] == pytest.approx(50 * 10 / KWH) and row["kwh_wasted"] == pytest.approx(10 * 10 / KWH)
    assert row["kwh_cpu_source"] == "model" and row["kwh_measured_share"] == 0
