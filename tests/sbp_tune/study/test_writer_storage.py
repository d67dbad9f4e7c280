"""What the only writer of a study sees is what is there, though it does not look at all of it."""

import optuna
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState

from sbp_tune.study.lock import only_writer
from sbp_tune.study.storage import create_study, open_study, set_attribute

OBJECTIVES = {"val_accuracy": "max", "kwh": "min"}
STEPS = st.lists(st.tuples(st.sampled_from(["ask", "enqueue", "note", "suggest", "tell", "read"]), st.integers(0, 5)))


@pytest.mark.slow
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS)
def test_the_only_writer_sees_what_everybody_would(tmp_path_factory, steps):
    """It reads again only what it wrote; all that it opens are one storage, however they are used in turn."""
    path = tmp_path_factory.mktemp("study")
    create_study(path, "demo", OBJECTIVES, {}).enqueue_trial({})
    with only_writer(path):
        mine = [open_study(path) for _ in range(3)]
        for turn, (step, number) in enumerate(steps):
            study, waiting = (
                mine[turn % 3],
                [trial for trial in open_study(path).get_trials() if trial.number == number],
            )
            running = [trial for trial in waiting if trial.state == TrialState.RUNNING]
            if step == "ask":
                study.ask()
            elif step == "enqueue":
                study.enqueue_trial({"x": 0.5})
            elif step == "note" and running:
                set_attribute(study, number, "note", turn)
            elif step == "suggest" and running:
                optuna.Trial(study, running[0]._trial_id).suggest_float("x", 0, 1)
            elif step == "tell" and running:
                study.tell(number, [turn, turn])
            elif step == "read":
                assert study.get_trials(deepcopy=False) == optuna_trials(path)
        assert all(study.get_trials(deepcopy=False) == optuna_trials(path) for study in mine)
    assert open_study(path).get_trials() == mine[0].get_trials()


def optuna_trials(path):
    """As another process would read them."""
    return optuna.load_study(storage=f"sqlite:///{path / 'study.db'}", study_name="demo").get_trials(deepcopy=False)


def test_another_process_may_have_written_between_two_times_of_being_the_only_writer(tmp_path):
    create_study(tmp_path, "demo", OBJECTIVES, {})
    with only_writer(tmp_path):
        number = open_study(tmp_path).ask().number
    open_study(tmp_path).tell(number, [0.5, 1.0])
    with only_writer(tmp_path):
        assert open_study(tmp_path).get_trials()[0].values == [0.5, 1.0]


def test_the_only_writer_reads_a_trial_again_only_if_it_wrote_it(tmp_path, monkeypatch):
    create_study(tmp_path, "demo", OBJECTIVES, {})
    with only_writer(tmp_path):
        study = open_study(tmp_path)
        trials = [study.ask() for _ in range(20)]
        study.get_trials(deepcopy=False)
        read = []
        build = optuna.storages.RDBStorage._build_frozen_trial_from_trial_model
        monkeypatch.setattr(
            optuna.storages.RDBStorage,
            "_build_frozen_trial_from_trial_model",
            lambda self, model: read.append(model.number) or build(self, model),
        )
        trials[7].set_user_attr("note", 1)
        assert open_study(tmp_path).get_trials(deepcopy=False)[7].user_attrs == {"note": 1} and read == [7]
        open_study(tmp_path).get_trials(deepcopy=False)
        assert read == [7]
