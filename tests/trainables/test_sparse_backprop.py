"""What of the real trainable is billed to whom, by a meter on a real Ray."""

import pytest

from sbp_tune.config import TrainConfig
from sbp_tune.energy.ledger import read_ledger
from sbp_tune.energy.node_actor import stop_meters
from sbp_tune.energy.records import LeaseClosed, LeaseOpened
from sbp_tune.errors import OutOfMemory
from sbp_tune.study.ledger import study_bill
from trainables import sparse_backprop
from trainables.sparse_backprop import SparseBackprop

CONFIG = TrainConfig.model_validate(
    {"data": {"name": "digits", "subset": 64}, "model": {"args": {"width": 4}}, "epochs": 2, "device": "cpu"}
)


@pytest.fixture
def trainable(tmp_path, ray_address):
    lease = {"folder": str(tmp_path / "energy"), "trial": "0", "attempt": 0}
    made = SparseBackprop({**CONFIG.model_dump(), "lease": lease})
    yield made
    made.stop()
    stop_meters(tmp_path / "energy")


def leases(tmp_path):
    """Trial, opening and ending of each, in their order."""
    records = list(read_ledger(tmp_path / "energy"))
    closed = {record.lease: record for record in records if isinstance(record, LeaseClosed)}
    return [(record, closed.get(record.lease)) for record in records if isinstance(record, LeaseOpened)]


def test_setting_up_is_the_searchs_and_comes_before_the_trials_lease(trainable, tmp_path):
    row = trainable.train()
    (set_up, ready), (trial, _) = leases(tmp_path)
    assert (set_up.trial, trial.trial) == (None, "0") and set_up.pid == trial.pid
    assert set_up.time < ready.time <= trial.time and ready.reason == "finished"
    bill, problems = study_bill(tmp_path)
    assert problems == () and bill.driver.kwh > 0
    assert bill.trials["0"].epochs == {1: pytest.approx(row["kwh"])}


def test_what_does_not_fit_fails_and_the_process_serves_the_next_trial():
    data = {"name": "digits", "subset": 128, "batch_size": 64}
    config = {**CONFIG.model_dump(), "data": data, "model": {"name": "hungry:Hungry"}}
    made = SparseBackprop(config)
    with pytest.raises(OutOfMemory, match="out of memory at batch size 64: peak"):
        made.train()
    assert made._training is None
    made.reset({**config, "data": {**data, "batch_size": 16}})
    assert made.train()["epoch"] == 1
    made.stop()


@pytest.mark.slow
def test_setting_up_that_fails_says_why_and_its_lease_ends(trainable, tmp_path, monkeypatch):
    def broken(*_):
        raise OSError("no checkpoint can be read")

    monkeypatch.setattr(sparse_backprop, "newest_whole", broken)
    with pytest.raises(OSError, match="no checkpoint can be read"):
        trainable.step()
    [(set_up, ended)] = leases(tmp_path)
    assert set_up.trial is None and ended.reason == "failed"
