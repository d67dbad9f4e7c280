import json

import pytest
from rich.console import Console

from sbp_tune.config import TrainConfig
from sbp_tune.energy.devices import cpu_name
from sbp_tune.profiling import STAGES, ProfiledTraining
from sbp_tune.train_run import train_run
from sbp_tune.training import Training


def config_of(**values):
    base = {
        "data": {"name": "digits", "subset": 256, "batch_size": 64, "augment": "crop_flip"},
        "model": {"args": {"width": 8}},
        "sparsity": {"estimator": "mask", "p0": 0.5},
        "epochs": 3,
        "cpu_threads": 1,
        "device": "cpu",
    }
    return TrainConfig.model_validate({**base, **values})


def rows_of(training):
    rows = []
    while not training.finished:
        rows.append(training.run_epoch())
    training.close()
    return [(row["loss"], row["val_loss"], row["val_accuracy"], row["tflop"]) for row in rows]


def test_watching_changes_no_result_and_the_stages_add_up_to_the_epoch():
    watched = ProfiledTraining(config_of())
    assert rows_of(watched) == rows_of(Training(config_of()))
    profile = watched.profile
    assert (profile.epoch, profile.warmed_up, profile.steps, profile.device) == (2, True, 4, cpu_name())
    assert tuple(profile.stages) == tuple(STAGES)
    assert all(seconds > 0 for name, seconds in profile.stages.items() if name != "other")
    # What ran outside the stages is a remainder, so nothing may have been counted twice.
    assert 0 <= profile.shares["other"] < 1 and sum(profile.shares.values()) == pytest.approx(1)
    assert sum(profile.stages.values()) == pytest.approx(profile.seconds)
    assert profile.images_per_second == pytest.approx(256 / (profile.seconds - profile.stages["validation"]))


def test_the_plain_loop_times_nothing(monkeypatch):
    monkeypatch.setattr(ProfiledTraining, "_span", None)
    assert len(rows_of(Training(config_of(epochs=1)))) == 1


def test_of_a_single_epoch_the_first_is_shown():
    training = ProfiledTraining(config_of(epochs=1))
    rows_of(training)
    assert training.profile.epoch == 1 and not training.profile.warmed_up


def test_train_writes_and_prints_it(tmp_path):
    console = Console(record=True, width=100)
    train_run(config_of(), tmp_path / "run", console=console, profile=True)
    written = json.loads((tmp_path / "run" / "profile.json").read_text())
    text = console.export_text()
    for name in STAGES:
        assert f"{100 * written['shares'][name]:.1f} %" in next(
            line for line in text.splitlines() if f" {name} " in line
        )
    said = " ".join(text.split())  # a long name of a processor makes two lines of the title
    assert f"Epoch 2 (after a warm-up epoch) on {cpu_name()}, by host clock" in said
