"""Checkpoints of a trial on object storage: written by its process, found by the next attempt, missed by nobody."""

from types import SimpleNamespace

import pytest
from object_storage import Wire
from ray.train._internal.storage import StorageContext

from sbp_tune.errors import StorageError
from sbp_tune.study.checkpoints import UnsavedEpochs, checkpoints_of, keeping_checkpoints
from sbp_tune.study.working import Mark, write_mark
from trainables.replay import Replay

pytestmark = pytest.mark.slow

CONFIG = {"data": {"name": "cifar10", "root": "nowhere"}, "epochs": 5}


@pytest.fixture
def trial(tmp_path, ray_address):
    """make(uri, resume_from): a process that plays a trial of a study at the URI, as Ray makes it."""

    def make(uri, **beside):
        path = tmp_path / "study"
        write_mark(path, Mark(uri))
        storage = StorageContext(str(path), "ray", trial_dir_name="attempt")
        trainable = keeping_checkpoints(Replay, path)
        assert trainable.__name__ == "Replay"
        return trainable({**CONFIG, **beside}, storage=storage), path

    return make


def test_the_next_attempt_goes_on_from_the_last_one(bucket, trial):
    first, path = trial(bucket)
    for _ in range(3):
        first.train()
        saved = first.save()
    assert saved.checkpoint.path.endswith("/studies/ray/attempt/checkpoint_000002")
    assert saved.metrics["training_iteration"] == 3
    found = checkpoints_of(path, "attempt")
    assert [uri.partition("?")[0].rpartition("/")[2][-1] for uri in found] == ["2", "1", "0"]
    assert not list((path / "ray").glob("*/checkpoint_*")) and checkpoints_of(path, "another") == []
    with saved.checkpoint.as_directory() as folder:  # as Ray reads it
        first.load_checkpoint(folder)
    second, _ = trial(bucket, resume_from=found)
    assert second.train()["epoch"] == 4


def test_a_checkpoint_that_was_cut_short_gives_way_to_the_one_before(bucket, trial):
    first, path = trial(bucket)
    for _ in range(2):
        first.train()
        first.save()
    newest, _ = found = checkpoints_of(path, "attempt")
    from sbp_tune.remote import Remote

    Remote(newest).write("replay.json", b'{"epo')
    second, _ = trial(bucket, resume_from=found)
    with pytest.warns(UserWarning, match="cannot be read, going on from an older one"):
        assert second.train()["epoch"] == 2


@pytest.mark.slow  # pyarrow asks again for 6 s
def test_a_trial_goes_on_without_a_storage_but_does_not_begin_again(bucket, trial, object_storage):
    wire = Wire(object_storage.port)
    first, path = trial(object_storage.uri(bucket.split("/")[2], wire.port))
    first.train()
    assert first.save().checkpoint is not None
    found = checkpoints_of(path, "attempt")
    wire.cut()
    first.train()
    assert first.save().checkpoint is None
    second, _ = trial(bucket, resume_from=found)
    with pytest.raises(StorageError, match="NETWORK_CONNECTION"):
        second.train()
    wire.mend()
    assert first.train()["epoch"] == 3
    assert first.save().checkpoint.path.endswith("checkpoint_000002")
    wire.cut()


def test_a_missing_checkpoint_is_told_once(tmp_path):
    said = []
    callback = UnsavedEpochs(tmp_path, said.append)

    def save(epoch, saved):
        result = saved and SimpleNamespace(metrics={"training_iteration": saved})
        config = {"lease": {"trial": "3"}}
        trial = SimpleNamespace(
            last_result={"training_iteration": epoch}, latest_checkpoint_result=result, config=config
        )
        callback.on_trial_save(0, [], trial)

    for epoch, saved, told in ((1, 1, 0), (2, 1, 1), (3, 1, 1), (4, 4, 1), (5, 4, 2), (1, None, 2)):
        save(epoch, saved)
        assert len(said) == told
    assert said[0].startswith("trial 3 could not write its checkpoint to ")


def test_a_study_in_a_directory_is_left_to_ray(tmp_path):
    assert keeping_checkpoints(Replay, tmp_path) is Replay
    (tmp_path / "ray" / "a" / "checkpoint_000000").mkdir(parents=True)
    assert checkpoints_of(tmp_path, "a") == [str(tmp_path / "ray" / "a" / "checkpoint_000000")]
