"""What a worker says is read back from the log of the trial that it ran at that time."""

import logging
import socket
import sys
import warnings
from pathlib import Path

import pytest
import ray.tune

from sbp_tune.study.worker_log import WorkerLog, logged


def lease(tmp_path, trial=7, attempt=0):
    return {"folder": str(tmp_path / "energy"), "trial": str(trial), "attempt": attempt}


def text(tmp_path, trial=7):
    return (tmp_path / "logs" / f"trial-{trial:04d}.log").read_text()


def test_prints_warnings_and_logging_are_kept_and_still_said(tmp_path, capsys):
    log = WorkerLog(lease(tmp_path))
    log.open()
    print("a print")
    print(warnings.formatwarning("a warning", UserWarning, "net.py", 3), file=sys.stderr)
    logging.getLogger("somebody").warning("a log line of %s", "somebody")
    assert "a print\n" in text(tmp_path)  # at once, not when it is closed
    log.close()
    print("after")
    kept = text(tmp_path)
    assert "net.py:3: UserWarning: a warning" in kept and "WARNING somebody: a log line of somebody" in kept
    assert kept.splitlines()[0].endswith(f"attempt 0 of trial 7, on {socket.gethostname()}") and "after" not in kept
    said = capsys.readouterr()
    assert said.out == "a print\nafter\n" and "a warning" in said.err


def test_a_disk_that_is_full_breaks_no_print(tmp_path, capsys):
    file = tmp_path / "logs" / "trial-0007.log"
    file.parent.mkdir()
    file.symlink_to("/dev/full")
    log = WorkerLog(lease(tmp_path))
    log.open()
    print("said")
    logging.getLogger("somebody").warning("as well")
    log.close()
    assert capsys.readouterr().out == "said\n"


def test_a_folder_that_cannot_be_made_loses_the_log_alone(tmp_path, capsys):
    (tmp_path / "logs").write_text("a file")
    log = WorkerLog(lease(tmp_path))
    streams = sys.stdout, sys.stderr
    log.open()
    assert (sys.stdout, sys.stderr) == streams
    log.say("nobody hears it")
    log.close()


class Noisy(ray.tune.Trainable):
    def step(self):
        print(f"working with {self.config['lr']}")
        if self.config["lr"] > 1:
            raise ValueError("too fast")
        return {"epoch": 1, "loss": 0.25, "val_accuracy": 0.5, "kwh": 2e-6}

    def reset_config(self, new_config):
        return True


@pytest.fixture
def in_place(tmp_path, monkeypatch):
    """Ray's trainables work in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ray.tune.Trainable, "_setup_logdir", lambda self: setattr(self, "_logdir", str(tmp_path)))


def test_a_process_that_is_used_again_writes_each_trial_its_own(tmp_path, in_place):
    trainable = logged(Noisy)({"lr": 0.1, "epochs": 3, "lease": lease(tmp_path, trial=1)})
    assert type(trainable).__name__ == "Noisy"
    trainable.train()
    trainable.reset({"lr": 0.2, "lease": lease(tmp_path, trial=2, attempt=1)})
    trainable.train()
    trainable.stop()
    first, second = text(tmp_path, 1), text(tmp_path, 2)
    assert "working with 0.1\n" in first and "with 0.2" not in first
    assert "epoch 1/3, loss 0.2500, val_accuracy 50.00 %, 2.00 mWh" in first
    assert "attempt 1 of trial 2" in second and "working with 0.2\n" in second
    assert sys.stdout is not None and "Tee" not in type(sys.stdout).__name__


def test_an_exception_is_kept_with_where_it_came_from(tmp_path, in_place):
    trainable = logged(Noisy)({"lr": 2, "lease": lease(tmp_path)})
    with pytest.raises(Exception, match="too fast"):
        trainable.train()
    trainable.stop()
    assert "ValueError: too fast" in text(tmp_path) and Path(__file__).name in text(tmp_path)


def test_without_a_study_nothing_is_written(tmp_path, in_place):
    trainable = logged(Noisy)({"lr": 0.1})
    trainable.train()
    trainable.stop()
    assert not (tmp_path / "logs").exists()
