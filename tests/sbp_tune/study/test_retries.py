from types import SimpleNamespace

import pytest
import ray.exceptions as rays
from optuna.trial import TrialState
from ray import cloudpickle
from ray.tune.search import Searcher

from sbp_tune.errors import EpochTimeout
from sbp_tune.study import retries
from sbp_tune.study.recorder import Recorder, reason
from sbp_tune.study.retries import is_death
from sbp_tune.study.searcher import OptunaSearcher, enqueue_fixed_points
from sbp_tune.study.storage import create_study, number_of, open_study

OF_THE_CODE = rays.RayTaskError("step", "a traceback", ValueError("loss is nan"))
DONE = {"val_accuracy": 0.9, "kwh": 1e-6, "fully_trained": True}


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (rays.ActorDiedError(), True),
        (rays.ActorUnavailableError("gone for a while", None), True),
        (rays.NodeDiedError("spot instance taken"), True),
        (rays.WorkerCrashedError(), True),
        (rays.OutOfMemoryError("killed by the memory monitor"), True),
        (EpochTimeout("epoch 3 took longer than 60 s: killed"), True),
        (rays.ActorDiedError(OF_THE_CODE), False),  # its own exception, in its creation
        (OF_THE_CODE, False),
        (ValueError("loss is nan"), False),
        (MemoryError(), False),
    ],
)
def test_only_what_ended_the_worker_from_outside_is_a_death(error, expected):
    assert is_death(error) is expected


@pytest.fixture
def start(tmp_path, make_study, monkeypatch, storage_in_memory):
    """start(max_failures) -> (directory, searcher, die): die(trial_id, error) is what Ray does when a trial fails.

    There is no rest between attempts.
    """
    monkeypatch.setattr(retries, "_LONGEST_REST_S", 0.0)

    def begin(max_failures=2, nodes=None):
        study = make_study(("{trials: 6}", f"{{trials: 6, max_failures: {max_failures}}}"))
        enqueue_fixed_points(create_study(tmp_path, study.file.name, study.objectives, {}), study)
        searcher = OptunaSearcher(study, tmp_path)
        recorder = Recorder(study, tmp_path, stop=lambda: None, nodes=nodes)

        def die(trial_id, error, last_result=None):
            file = tmp_path / f"{trial_id}.pkl"
            file.write_bytes(cloudpickle.dumps(error))
            searcher.on_trial_complete(trial_id, error=True)
            config = {"lease": {"trial": str(number_of(open_study(tmp_path), trial_id))}}
            trial = SimpleNamespace(
                trial_id=trial_id, config=config, pickled_error_file=str(file), last_result=last_result or {}
            )
            recorder.on_trial_error(0, [], trial)

        return tmp_path, searcher, die

    return begin


def test_a_dead_trial_goes_on_from_its_checkpoint_and_others_are_not_held_up(start):
    path, searcher, die = start()
    first = searcher.suggest("a")
    other = searcher.suggest("b")
    (path / "ray" / "a" / "checkpoint_000000").mkdir(parents=True)
    die("a", rays.ActorDiedError())
    assert open_study(path).get_trials()[0].state == TrialState.RUNNING
    again = searcher.suggest("a2")
    checkpoints = [str(path / "ray" / "a" / "checkpoint_000000")]
    assert again == {**first, "lease": {**first["lease"], "attempt": 1}, "resume_from": checkpoints}
    assert searcher.suggest("c")["lease"]["trial"] != other["lease"]["trial"]
    searcher.on_trial_complete("a2", DONE)
    assert open_study(path).get_trials()[0].state == TrialState.COMPLETE


def test_one_that_dies_after_its_last_epoch_is_complete_and_does_not_run_again(start):
    path, searcher, die = start()
    first = searcher.suggest("a")
    die("a", rays.ActorDiedError(), DONE)
    trial = open_study(path).get_trials()[0]
    assert trial.state == TrialState.COMPLETE and trial.values == [DONE["val_accuracy"], DONE["kwh"]]
    assert searcher.suggest("b")["lease"]["trial"] != first["lease"]["trial"]


@pytest.mark.parametrize("allowed", [0, 1, 3])
def test_one_that_dies_every_time_is_given_up_with_the_reason(start, allowed):
    path, searcher, die = start(allowed)
    for attempt in range(allowed + 1):
        assert searcher.suggest(f"a{attempt}")["lease"] == {
            "folder": str(path / "energy"),
            "trial": "0",
            "attempt": attempt,
        }
        die(f"a{attempt}", rays.NodeDiedError("its node is gone"))
    trial = open_study(path).get_trials()[0]
    attempts = f"{allowed + 1} attempt{'s' if allowed else ''}"
    assert trial.state == TrialState.FAIL
    assert trial.user_attrs["error"] == f"given up after {attempts} that died: NodeDiedError: its node is gone"
    assert searcher.suggest("b")["lease"]["trial"] == "1"


def test_an_error_of_its_own_is_final(start):
    path, searcher, die = start()
    searcher.suggest("a")
    die("a", OF_THE_CODE)
    trial = open_study(path).get_trials()[0]
    assert trial.state == TrialState.FAIL and trial.user_attrs["error"] == "ValueError: loss is nan"


def test_the_search_is_not_over_while_a_trial_may_have_to_go_on(start):
    _, searcher, die = start()
    configs = [searcher.suggest(f"t{number}") for number in range(8)]
    assert all(isinstance(config, dict) for config in configs)
    assert searcher.suggest("none") is None
    for number in range(1, 8):
        searcher.on_trial_complete(f"t{number}", DONE)
    assert searcher.suggest("none") is None
    die("t0", rays.WorkerCrashedError())
    assert searcher.suggest("t0-2")["lease"]["trial"] == "0"
    searcher.on_trial_complete("t0-2", DONE)
    assert searcher.suggest("none") == Searcher.FINISHED


def test_deaths_are_counted_over_restarts(start, make_study):
    path, searcher, die = start(1)
    searcher.suggest("a")
    die("a", rays.ActorDiedError())
    study = make_study(("{trials: 6}", "{trials: 6, max_failures: 1}"))
    assert OptunaSearcher(study, path).suggest("a2")["lease"]["attempt"] == 1
    die("a2", rays.ActorDiedError())
    assert open_study(path).get_trials()[0].state == TrialState.FAIL


@pytest.mark.parametrize(("deaths", "rest"), [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (20, 60)])
def test_the_rest_grows_with_the_deaths(deaths, rest):
    trial = SimpleNamespace(user_attrs={"deaths": {str(index): 1000.0 + index for index in range(deaths)}})
    last = 1000.0 + deaths - 1
    assert retries.rests(trial, last) and retries.rests(trial, last + rest - 0.1)
    assert not retries.rests(trial, last + rest) and not retries.rests(trial, last - 5)
    assert not retries.rests(SimpleNamespace(user_attrs={}))


def test_while_a_trial_rests_others_start_and_the_search_waits(start, monkeypatch):
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(retries, "time", SimpleNamespace(time=lambda: clock.now))
    _, searcher, die = start()
    monkeypatch.setattr(retries, "_LONGEST_REST_S", 60.0)
    searcher.suggest("a")
    die("a", rays.ActorDiedError())
    clock.now += 0.9
    assert [searcher.suggest(f"b{number}")["lease"]["trial"] for number in range(1, 8)] == list("1234567")
    for number in range(1, 8):
        searcher.on_trial_complete(f"b{number}", DONE)
    assert searcher.suggest("none") is None
    clock.now += 0.1
    lease = searcher.suggest("a2")["lease"]
    assert (lease["trial"], lease["attempt"]) == ("0", 1)


def test_what_a_node_is_to_blame_for_is_no_death_but_not_for_ever(start):
    fault = "node 10.0.0.7: No module named 'sbp_tune'"
    path, searcher, die = start(max_failures=0, nodes=SimpleNamespace(fault_of=lambda error: fault))
    for attempt in range(10):
        assert searcher.suggest(f"a{attempt}")["lease"]["attempt"] == attempt  # at once
        die(f"a{attempt}", OF_THE_CODE)
    trial = open_study(path).get_trials()[0]
    assert trial.state == TrialState.RUNNING
    assert retries.lost_attempts(trial) == dict.fromkeys(range(10), fault)
    searcher.suggest("a10")
    die("a10", OF_THE_CODE)
    assert open_study(path).get_trials()[0].user_attrs["error"] == "ValueError: loss is nan"


def test_every_lost_attempt_keeps_its_reason(start):
    path, searcher, die = start(1)
    searcher.suggest("a")
    die("a", rays.NodeDiedError("its node is gone"))
    searcher.suggest("a2")
    die("a2", rays.WorkerCrashedError())
    assert retries.lost_attempts(open_study(path).get_trials()[0]) == {
        0: "NodeDiedError: its node is gone",
        1: "WorkerCrashedError: The worker died unexpectedly while executing this task. "
        "Check python-core-worker-*.log files for more information.",
    }


def test_what_ray_says_of_a_worker_is_one_line_without_its_numbers_and_no_page():
    died = rays.RayActorError(
        error_msg="The actor died.\n\tclass_name: X\n\tactor_id: 4f\n\tpid: 7\n\tip: 10.0.0.7\nIts node died."
    )
    assert reason(died) == "RayActorError: The actor died. pid: 7 ip: 10.0.0.7 Its node died."
    memory = reason(rays.OutOfMemoryError("killed: 12 of 16 GB " + "used by X " * 200))
    assert memory.startswith("OutOfMemoryError: killed: 12 of 16 GB used by X") and memory.endswith(" ...")
    assert len(memory) < 450
