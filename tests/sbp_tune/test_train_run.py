import json
import time

import pandas as pd
import pytest
import torch

from sbp_tune import train_run as module
from sbp_tune.config import TrainConfig, load_config
from sbp_tune.energy import EnergyMeter
from sbp_tune.energy.counters.rapl import Zone
from sbp_tune.errors import InputError
from sbp_tune.train_run import train_run

CONFIG = TrainConfig.model_validate(
    {"data": {"subset": 256}, "model": {"args": {"width": 4}}, "epochs": 3, "cpu_threads": 1, "device": "cpu"}
)


def test_it_leaves_model_metrics_and_config(tmp_path):
    result = train_run(CONFIG, tmp_path / "run")
    assert load_config(tmp_path / "run" / "config.yaml") == CONFIG
    assert json.loads((tmp_path / "run" / "result.json").read_text()) == result
    assert len(pd.read_csv(tmp_path / "run" / "epochs.csv")) == 3
    assert len(torch.load(tmp_path / "run" / "model.pt", weights_only=True)) > 4
    assert 0 < result["test_accuracy"] <= 1 and len(result["confusion"]) == 10


def test_it_reads_rapl_where_it_is_readable(tmp_path, monkeypatch):
    zone = tmp_path / "powercap" / "intel-rapl:0"
    zone.mkdir(parents=True)
    (zone / "name").write_text("package-0\n")
    (zone / "max_energy_range_uj").write_text("262143328850\n")
    monkeypatch.setattr(Zone, "energy_uj", lambda zone: int(50e6 * time.monotonic()))  # 50 W
    monkeypatch.setitem(EnergyMeter.__init__.__kwdefaults__, "powercap", zone.parent)
    result = train_run(CONFIG.model_copy(update={"epochs": 1}), tmp_path / "run")
    assert (result["kwh_cpu_source"], result["kwh_ram_source"]) == ("counter", "model")
    assert 0 < result["kwh_cpu"] * 3.6e6 <= 50 * result["train_time_s"]
    assert result["kwh_measured_share"] == pytest.approx(result["kwh_cpu"] / result["kwh"])


def test_an_existing_run_is_not_written_over(tmp_path):
    train_run(CONFIG, tmp_path)
    with pytest.raises(InputError, match="holds a run already; continue it with --resume"):
        train_run(CONFIG, tmp_path)
    with pytest.raises(InputError, match="holds a run of another config"):
        train_run(CONFIG.model_copy(update={"epochs": 4}), tmp_path, resume=True)


def test_resume_ends_where_an_uninterrupted_run_does(tmp_path, monkeypatch):
    whole = train_run(CONFIG, tmp_path / "whole")

    class Interrupted(module.Training):
        def run_epoch(self):
            if self.epoch == 2:
                raise KeyboardInterrupt
            return super().run_epoch()

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "Training", Interrupted)
        train_run(CONFIG, tmp_path / "cut")
    assert len(pd.read_csv(tmp_path / "cut" / "epochs.csv")) == 2
    resumed = train_run(CONFIG, tmp_path / "cut", resume=True)
    for name in ("loss", "val_loss", "test_accuracy", "tflop"):
        assert resumed[name] == whole[name]
    losses = [pd.read_csv(tmp_path / name / "epochs.csv")["loss"].tolist() for name in ("cut", "whole")]
    assert losses[0] == losses[1]
