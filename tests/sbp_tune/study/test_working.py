"""A study that is run on one machine and read or resumed on another: two folders of state, and the storage between."""

import time

import pytest
from object_storage import Wire

from sbp_tune.errors import InputError, SbpTuneError
from sbp_tune.remote import Remote
from sbp_tune.study import drivers, mirror
from sbp_tune.study.epochs import append_row, read_log
from sbp_tune.study.launch import _create
from sbp_tune.study.lock import is_in_use, only_writer
from sbp_tune.study.results import load_study, write_tables
from sbp_tune.study.searcher import OptunaSearcher
from sbp_tune.study.working import fetched, new_study, read_mark, remote_of, shown

pytestmark = pytest.mark.slow

DONE = {"val_accuracy": 0.9, "kwh": 1e-6, "fully_trained": True}


@pytest.fixture
def on(monkeypatch, tmp_path):
    """on(machine): what follows happens there."""
    return lambda machine: monkeypatch.setenv("SBP_TUNE_STATE", str(tmp_path / machine))


@pytest.fixture
def begun(bucket, make_study, on):
    """A new study of machine a, begun and not run."""
    on("a")
    study, path = make_study(), new_study(bucket, "demo")
    _create(study, path)
    return study, path


def run_trials(study, path, count):
    """Plays so many trials, as Ray and the recorder would."""
    searcher, before = OptunaSearcher(study, path), len(read_log(path))
    for number in range(before, before + count):
        row = {**DONE, "kwh": 1e-6 * (number + 1), "epoch": 1}
        assert isinstance(searcher.suggest(f"t{number}"), dict)
        append_row(path, {**row, "trial_id": f"t{number}"})
        searcher.on_trial_complete(f"t{number}", row)


def table(path):
    return load_study(path).trials[["trial", "trial_id", "state", "kwh"]].to_dict("list")


def test_another_machine_reads_what_was_run(begun, on):
    study, path = begun
    with only_writer(path):
        run_trials(study, path, 3)
        uri = shown(path)
        on("b")
        early = fetched(uri)
        assert early != path and is_in_use(early) and load_study(early).trials.empty
    write_tables(load_study(path))
    mirror.publish(path)
    late = fetched(uri)
    assert late == early and not is_in_use(late) and table(late) == table(path) and len(table(late)["trial"]) == 3
    assert (late / "trials.csv").read_text() == (path / "trials.csv").read_text()
    assert (late / "study.yaml").read_text() == (path / "study.yaml").read_text()
    assert read_mark(late).driver is None and not (late / ".lock").exists()


def test_another_machine_goes_on_and_the_first_takes_it_over(begun, on):
    study, path = begun
    with only_writer(path):
        run_trials(study, path, 2)
    uri = shown(path)
    on("b")
    other = fetched(uri)
    with only_writer(other):
        run_trials(study, other, 3)
    with pytest.raises(SbpTuneError, match=r"was run on .* since this directory was fetched"), only_writer(path):
        pass
    on("a")
    assert fetched(uri) == path and table(path) == table(other) and len(table(path)["trial"]) == 5
    with only_writer(path):
        run_trials(study, path, 1)
    assert list(path.parent.glob("*.before-*")) == []  # all of it was copied


def test_what_a_dead_driver_could_not_copy_is_kept(begun, on, monkeypatch):
    study, path = begun
    with only_writer(path):
        pass
    mark = read_mark(path)
    with drivers.only_driver(remote_of(path), path, mark):  # and no mirror: it was killed before
        run_trials(study, path, 2)
    uri = shown(path)
    assert table(fetched(uri))["trial"] == [0, 1]  # itself it goes on from its own
    with drivers.only_driver(remote_of(path), path, read_mark(path)):
        run_trials(study, path, 1)
    monkeypatch.setattr(drivers, "STALE_S", 0.0)
    on("b")
    other = fetched(uri)
    assert table(other)["trial"] == [0, 1]
    with only_writer(other):
        run_trials(study, other, 3)
    on("a")
    assert fetched(uri) == path and table(path) == table(other)
    [aside] = path.parent.glob("demo.before-*")
    assert table(aside)["trial"] == [0, 1, 2]


def test_a_name_that_is_taken_and_one_that_is_not_there(begun, bucket):
    _, path = begun
    with pytest.raises(InputError, match=rf"is left of a search that is not at s3://.*`sbp-tune resume {path}`"):
        new_study(bucket, "demo")
    with only_writer(path):
        pass
    with pytest.raises(
        InputError, match=r"demo\?.*: a study of this name exists; continue it with `sbp-tune resume 's3"
    ):
        new_study(bucket, "demo")
    with pytest.raises(InputError, match=r"/other\?.*: not a study: it has no study.yaml"):
        fetched(Remote(bucket).child("other").uri)


@pytest.mark.slow  # pyarrow asks again for 6 s
def test_the_storage_may_be_away_for_a_while(begun, object_storage, bucket, make_study, monkeypatch, capsys):
    monkeypatch.setattr(mirror, "PERIOD_S", 0.1)
    monkeypatch.setattr(mirror, "FINAL_S", 0.0)
    wire = Wire(object_storage.port)
    study, path = make_study(), new_study(object_storage.uri(bucket.split("/")[2], wire.port), "far")
    _create(study, path)

    def said(text):
        while text not in capsys.readouterr().err:
            time.sleep(0.05)

    with only_writer(path):
        wire.cut()
        run_trials(study, path, 2)
        said("; the search goes on, and is copied when that can be done")
        wire.mend()
        said(": all is copied again")
    assert read_mark(path).copied
    with pytest.raises(SbpTuneError, match=r"not all of the study is there, .*`sbp-tune report 's3"), only_writer(path):
        wire.cut()
        run_trials(study, path, 1)
    with pytest.raises(InputError, match=f"NETWORK_CONNECTION.*; what this machine has of it is in {path}"):
        fetched(shown(path))
    wire.mend()
    assert fetched(shown(path)) == path and read_mark(path).copied
    wire.cut()
    monkeypatch.setenv("SBP_TUNE_STATE", str(path.parent / "elsewhere"))
    assert table(fetched(Remote(bucket).child("far").uri)) == table(path)


@pytest.mark.slow  # pyarrow asks again for 6 s
def test_a_driver_that_was_cut_off_too_long_stops_and_copies_nothing(
    object_storage, bucket, make_study, monkeypatch, capsys
):
    monkeypatch.setattr(mirror, "PERIOD_S", 0.1)
    wire = Wire(object_storage.port)
    study, path = make_study(), new_study(object_storage.uri(bucket.split("/")[2], wire.port), "far")
    _create(study, path)
    with pytest.raises(KeyboardInterrupt), only_writer(path):
        wire.cut()
        run_trials(study, path, 2)
        with monkeypatch.context() as short:
            short.setattr(drivers, "STALE_S", 0.0)
            other = fetched(Remote(bucket).child("far").uri)
            with only_writer(other):
                run_trials(study, other, 1)
        wire.mend()
        time.sleep(300)  # until it is interrupted
    assert "was taken over by" in capsys.readouterr().err
    assert table(fetched(shown(other))) == table(other) and len(table(other)["trial"]) == 1
    assert fetched(shown(path)) == path and table(path) == table(other)
    [aside] = path.parent.glob("far.before-*")
    assert len(table(aside)["trial"]) == 2
    wire.cut()
