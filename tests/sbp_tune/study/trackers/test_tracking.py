"""What a tracker is told, in which order, and that none holds up or ends a search."""

import sys
import threading

import pytest

from sbp_tune.errors import InputError
from sbp_tune.study.trackers import check_trackers, tracking
from sbp_tune.study.trackers.tracking import Tracking
from sbp_tune.study.watching import Attempt

CONFIG = {"epochs": 2, "sparsity": {"p0": 0.5, "layers": {"include": ["a", "b"]}}, "data": {"name": "digits"}}
FIRST = Attempt(7, 0, "search", CONFIG, trial_id="a", first_id="a")
SECOND = Attempt(7, 1, "search", CONFIG, trial_id="b", first_id="a")
ROW = {"epoch": 1, "val_accuracy": 0.5, "kwh": 1e-6, "loss": float("nan"), "f1": None, "pid": 3, "device": "cpu"}


class Notes:
    """A tracker that notes what it is told; `broken` of it raises."""

    def __init__(self, broken=()):
        self.told, self.broken = [], broken

    def _note(self, name, *words):
        self.told.append((name, *words))
        if name in self.broken:
            raise ConnectionError("gone\nsince noon")

    def open(self):
        self._note("open")

    def begin(self, run):
        self._note("begin", run.name, run.attempt, run.trial_id)
        self.run = run

    def log(self, run, epoch, metrics):
        self._note("log", run.name, epoch, metrics)

    def end(self, run):
        self._note("end", run.name, run.state, run.why)

    def close(self):
        self._note("close")


def follow(client, tmp_path):
    """A trial of two attempts, as the watchers of a search are told of it; what was warned of."""
    warned = []
    watcher = Tracking("notes", client, "demo", tmp_path, warned.append)
    watcher.study_began({})
    watcher.trial_began(FIRST)
    watcher.epoch_ended(FIRST, ROW)
    watcher.trial_died(FIRST, "its node went")
    watcher.trial_began(SECOND)
    watcher.epoch_ended(SECOND, {**ROW, "epoch": 2})
    watcher.trial_ended(SECOND, "stopped", None)
    watcher.study_ended({})
    return warned


def test_a_trial_is_one_run_over_its_attempts_with_flat_settings_and_numbers(tmp_path):
    client = Notes()
    assert follow(client, tmp_path) == []
    figures = {"val_accuracy": 0.5, "kwh": 1e-6}
    name = "trial-0007"
    assert client.told == [
        ("open",),
        ("begin", name, 0, "a"),
        ("log", name, 1, {"epoch": 1.0, **figures}),
        ("log", name, 2, {"epoch": 2.0, **figures}),
        ("end", name, "stopped", None),
        ("close",),
    ]
    assert client.run.config == {
        "epochs": 2, "sparsity.p0": 0.5, "sparsity.layers.include": '["a", "b"]', "data.name": "digits"
    }  # fmt: skip


def test_one_that_fails_is_told_once_and_tried_again(tmp_path):
    client = Notes(broken=("log", "end"))
    [line] = follow(client, tmp_path)
    assert line == "notes failed, what it misses is in the study's own files: ConnectionError: gone since noon"
    assert [name for name, *_ in client.told] == ["open", "begin", "log", "log", "end", "close"]


def test_one_that_hangs_holds_up_nobody_and_the_end_for_a_while(tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "_LAST_WORDS_S", 0.1)
    client, go_on = Notes(), threading.Event()
    client.log = lambda *_: go_on.wait(60)
    [line] = follow(client, tmp_path)
    go_on.set()
    assert line.startswith("notes had not taken everything 0.1 s after the end")


def test_what_cannot_be_used_is_a_line_each(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(InputError) as error:
        check_trackers(["mlflow", "tensorboard"])
    mlflow, tensorboard = error.value.problems
    assert mlflow.startswith("search.trackers: mlflow: not installed") and "'sbp-tune[mlflow]'" in mlflow
    assert tensorboard.startswith("search.trackers: tensorboard: not installed")
