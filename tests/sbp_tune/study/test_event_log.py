"""The log of a study that Ray's callbacks would write, with its searcher and recorder, but without Ray."""

import json
import math
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
import ray.exceptions as rays
from hypothesis import given
from hypothesis import strategies as st
from ray import cloudpickle

from sbp_tune.files import append_json_line
from sbp_tune.study.event_log import EventLog
from sbp_tune.study.recorder import Recorder
from sbp_tune.study.searcher import OptunaSearcher, enqueue_fixed_points
from sbp_tune.study.storage import create_study
from sbp_tune.study.watchers import watched
from sbp_tune.study.watching import Watching

WHERE = {"hostname": "here", "node_ip": "10.0.0.1", "pid": 7, "device": "cpu"}


@pytest.fixture
def search(tmp_path, make_study, storage_in_memory):
    """A study of 2 dense controls and 6 trials, its searcher, and the callbacks that come after each other."""
    study = make_study()
    enqueue_fixed_points(create_study(tmp_path, study.file.name, study.objectives, {}), study)
    watching = Watching(tmp_path)
    watching.begin([EventLog(tmp_path, "demo")], {"resumed": False, "versions": {"ray": "2"}})
    recorder = Recorder(study, tmp_path, stop=lambda: None)
    return SimpleNamespace(searcher=OptunaSearcher(study, tmp_path), recorder=recorder, watching=watching)


def started(search, trial_id):
    trial = SimpleNamespace(trial_id=trial_id, config=search.searcher.suggest(trial_id), last_result={})
    search.watching.on_trial_start(0, [], trial)
    return trial


def report(search, trial, epoch, **row):
    row = {"epoch": epoch, "trial_id": trial.trial_id, "val_accuracy": 0.9, "kwh": 1e-6, "config": {}, **WHERE, **row}
    trial.last_result = row
    search.watching.on_trial_result(0, [], trial, row)


def complete(search, trial):
    search.searcher.on_trial_complete(trial.trial_id, trial.last_result)
    search.watching.on_trial_complete(0, [], trial)


def failed(search, tmp_path, trial, error):
    trial.pickled_error_file = str(tmp_path / "error.pkl")
    (tmp_path / "error.pkl").write_bytes(cloudpickle.dumps(error))
    search.searcher.on_trial_complete(trial.trial_id, error=True)
    search.recorder.on_trial_error(0, [], trial)
    search.watching.on_trial_error(0, [], trial)


def lines(file):
    """Strict JSON alone: what Python writes of a NaN is none."""
    return [json.loads(line, parse_constant=pytest.fail) for line in file.read_text().splitlines()]


def events(file):
    return [line["event"] for line in lines(file)]


def test_a_trial_is_told_in_both_logs_and_its_epochs_in_its_own(search, tmp_path):
    trial = started(search, "a")
    report(search, trial, 1)
    report(search, trial, 8, fully_trained=True, loss=math.nan)
    complete(search, trial)
    search.watching.close("finished")
    begun, placed, ended = "trial_began", "trial_placed", "trial_ended"
    assert events(tmp_path / "log.jsonl") == ["study_began", begun, placed, ended, "study_ended"]
    own = lines(tmp_path / "logs" / "trial-0000.jsonl")
    assert [line["event"] for line in own] == [begun, placed, "epoch_ended", "epoch_ended", ended]
    assert own[0]["kind"] == "baseline" and own[0]["config"]["sparsity"]["estimator"] == "dense"
    assert own[0]["attempt"] == 0 and "lease" not in own[0]["config"]
    assert {name: own[1][name] for name in WHERE} == WHERE
    assert own[3] | {"epoch": 8, "val_accuracy": 0.9, "kwh": 1e-6, "loss": None} == own[3] and "pid" not in own[3]
    assert (own[4]["state"], own[4]["epoch"], own[4]["level"]) == ("complete", 8, "info")
    assert {line["trial"] for line in own} == {0} and {line["study"] for line in own} == {"demo"}
    for line in own:
        assert abs(datetime.now(UTC) - datetime.fromisoformat(line["time"])) < timedelta(minutes=1)
        assert line["time"].endswith("Z")


def test_a_stopped_trial_says_so(search, tmp_path):
    trial = started(search, "a")
    report(search, trial, 2)
    complete(search, trial)
    assert lines(tmp_path / "log.jsonl")[-1]["state"] == "stopped"


def test_a_failure_brings_its_reason(search, tmp_path):
    failed(search, tmp_path, started(search, "a"), ValueError("no such layer"))
    last = lines(tmp_path / "log.jsonl")[-1]
    assert (last["event"], last["state"], last["level"]) == ("trial_ended", "failed", "error")
    assert last["error"] == "ValueError: no such layer"


def test_a_death_is_no_end_and_the_next_attempt_is_of_the_same_trial(search, tmp_path):
    trial = started(search, "a")
    report(search, trial, 1)
    failed(search, tmp_path, trial, rays.ActorDiedError())
    search.searcher._can_go_on = lambda trial: True  # without the rest after a death
    report(search, started(search, "b"), 2)
    own = lines(tmp_path / "logs" / "trial-0000.jsonl")
    assert [line["event"] for line in own[3:]] == ["trial_died", "trial_began", "trial_placed", "epoch_ended"]
    assert (own[3]["level"], own[3]["epoch"]) == ("warning", 1) and own[3]["error"].startswith("ActorDiedError")
    assert [line["attempt"] for line in own] == [0, 0, 0, 0, 1, 1, 1] and own[-1]["trial_id"] == "b"


def test_what_runs_when_the_search_ends_is_interrupted(search, tmp_path):
    report(search, started(search, "a"), 1)
    search.watching.say("budget", "Budget: all used.")
    search.watching.close("interrupted")
    *_, budget, trial, end = lines(tmp_path / "log.jsonl")
    assert (budget["event"], budget["message"], trial["state"]) == ("budget", "Budget: all used.", "interrupted")
    assert (end["event"], end["ending"]) == ("study_ended", "interrupted")


def test_an_error_that_ends_the_search_is_its_last_line(search, tmp_path):
    with pytest.raises(OSError, match="full"), watched(tmp_path) as watching:
        watching.begin([EventLog(tmp_path, "demo")], {})
        raise OSError("full")
    end = lines(tmp_path / "log.jsonl")[-1]
    assert (end["event"], end["ending"], end["error"], end["level"]) == (
        "study_ended",
        "failed",
        "OSError: full",
        "error",
    )


@given(st.integers(0, 60))
def test_a_line_cut_by_a_crash_spoils_no_later_one(tmp_path_factory, cut):
    file = tmp_path_factory.mktemp("log") / "log.jsonl"
    for number in range(3):
        append_json_line(file, {"number": number}, durable=False)
    whole = file.read_bytes()
    file.write_bytes(whole[: min(cut, len(whole))])
    append_json_line(file, {"number": 9}, durable=False)
    assert json.loads(file.read_text().splitlines()[-1]) == {"number": 9}
