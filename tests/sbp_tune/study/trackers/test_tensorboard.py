"""The files that TensorBoard reads, read back."""

import struct

import pytest

pytest.importorskip("tensorboardX", reason="pip install 'sbp-tune[tensorboard]'")

from tensorboardX.proto.event_pb2 import Event

from sbp_tune.study.trackers import check_trackers, make_trackers
from sbp_tune.study.watching import Attempt

TRIAL = Attempt(7, 0, "search", {"epochs": 2, "sparsity": {"p0": 0.5}}, trial_id="a", first_id="a")


def events(folder):
    """The records of the one event file in a folder (TFRecord: length, its checksum, bytes, their checksum)."""
    [file] = folder.glob("events.out.tfevents.*")
    data = file.read_bytes()
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        yield Event.FromString(data[12 : 12 + length])
        data = data[16 + length :]


def test_curves_by_epoch_settings_and_how_it_ended(tmp_path):
    check_trackers(["tensorboard"])
    [watcher] = make_trackers(["tensorboard"], "demo", tmp_path, pytest.fail)
    watcher.study_began({})
    watcher.trial_began(TRIAL)
    for epoch, accuracy in ((1, 0.5), (2, 0.75)):
        watcher.epoch_ended(TRIAL, {"epoch": epoch, "val_accuracy": accuracy, "kwh": 1e-6 * epoch})
    watcher.trial_ended(TRIAL, "failed", "OutOfMemory: at batch size 8")
    watcher.study_ended({})
    found = list(events(tmp_path / "tensorboard" / "trial-0007"))
    values = [(event.step, value) for event in found for value in event.summary.value]
    curve = [(step, value.simple_value) for step, value in values if value.tag == "ray/tune/val_accuracy"]
    assert curve == [(1, 0.5), (2, 0.75)]
    assert any(b"failed: OutOfMemory: at batch size 8" in part for _, v in values for part in v.tensor.string_val)
    settings = [value.metadata.plugin_data for _, value in values if value.tag == "_hparams_/session_start_info"]
    assert len(settings) == 1 and b"sparsity.p0" in settings[0].content
