"""The live table is read off the console that a person would see: Rich's own, recorded."""

from types import SimpleNamespace

import pytest
import ray.exceptions as rays
from ray import cloudpickle
from rich.console import Console

from sbp_tune.study.progress import Progress
from sbp_tune.study.retries import note_death
from sbp_tune.study.searcher import OptunaSearcher, enqueue_fixed_points
from sbp_tune.study.storage import create_study, open_study


@pytest.fixture
def search(tmp_path, make_study, storage_in_memory):
    """search(width, terminal) -> (progress, searcher, console) of a new study of 2 dense controls and 6 trials."""
    progresses = []

    def begin(width=120, terminal=True, trials=6):
        study = make_study(("{trials: 6}", f"{{trials: {trials}}}"))
        enqueue_fixed_points(create_study(tmp_path, study.file.name, study.objectives, {}), study)
        console = Console(width=width, height=60, force_terminal=terminal, color_system=None, record=True)
        progresses.append(Progress(tmp_path, study.total_trials, console=console))
        progresses[-1].setup()
        return progresses[-1], OptunaSearcher(study, tmp_path), console

    yield begin
    for progress in progresses:
        progress.close()


def started(progress, searcher, trial_id):
    """Ray's object of a trial that it starts, as far as callbacks look at it."""
    trial = SimpleNamespace(trial_id=trial_id, config=searcher.suggest(trial_id), last_result={})
    progress.on_trial_start(0, [], trial)
    return trial


def report(progress, trial, epoch, accuracy, kwh, fully_trained=False):
    trial.last_result = {"epoch": epoch, "val_accuracy": accuracy, "kwh": kwh, "fully_trained": fully_trained}
    progress.on_trial_result(0, [], trial, trial.last_result)


def finish(progress, searcher, trial, accuracy, kwh):
    report(progress, trial, trial.config["epochs"], accuracy, kwh, fully_trained=True)
    searcher.on_trial_complete(trial.trial_id, trial.last_result)
    progress.on_trial_complete(0, [], trial)


def table(progress):
    """Cells of the live table by trial, and its caption."""
    console = Console(width=120, color_system=None)
    with console.capture() as captured:
        console.print(progress._live.get_renderable())
    lines = captured.get().splitlines()
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if "│" in line]
    return {row[0]: row[1:] for row in rows}, lines[-1]


def test_a_running_trial_shows_its_epoch_and_figures(search):
    progress, searcher, _ = search()
    trial = started(progress, searcher, "a")
    assert table(progress)[0] == {"0": ["dense", "runs", "0/8", "", "", ""]}
    report(progress, trial, 3, 0.5, 2e-6)
    rows, caption = table(progress)
    assert rows == {"0": ["dense", "runs", "3/8", "50.00 %", "2.00 mWh", ""]}
    assert "0 of 8 trials ended, 1 running, 0 failed; 2.00 mWh; front: 0" in caption


def test_what_is_on_the_front_says_so_until_it_is_dominated(search):
    progress, searcher, _ = search()
    for trial_id, accuracy, kwh in [("a", 0.9, 3e-6), ("b", 0.8, 1e-6), ("c", 0.7, 2e-6)]:
        finish(progress, searcher, started(progress, searcher, trial_id), accuracy, kwh)
    rows, caption = table(progress)
    assert [rows[number][-1] for number in "012"] == ["front", "front", ""]
    assert "3 of 8 trials ended, 0 running, 0 failed; 6.00 mWh; front: 2" in caption
    finish(progress, searcher, started(progress, searcher, "d"), 0.95, 0.5e-6)
    rows, caption = table(progress)
    assert rows["3"][-1] == "front" and "front: 1" in caption


def test_a_stopped_trial_is_no_point_of_the_front(search):
    progress, searcher, _ = search()
    trial = started(progress, searcher, "a")
    report(progress, trial, 1, 0.99, 1e-9)
    searcher.on_trial_complete("a", trial.last_result)
    progress.on_trial_complete(0, [], trial)
    rows, caption = table(progress)
    assert rows["0"][1] == "stopped" and rows["0"][-1] == "" and "front: 0" in caption


def failed(tmp_path, progress, trial, error):
    trial.pickled_error_file = str(tmp_path / "error.pkl")
    (tmp_path / "error.pkl").write_bytes(cloudpickle.dumps(error))
    progress.on_trial_error(0, [], trial)


def test_a_failure_is_said_with_its_reason_above_the_table(search, tmp_path):
    progress, searcher, _ = search()
    trial = started(progress, searcher, "a")
    searcher.on_trial_complete("a", error=True)
    failed(tmp_path, progress, trial, ValueError("[red]loss[/red] is nan"))
    rows, caption = table(progress)
    assert rows["0"][1] == "failed" and "1 of 8 trials ended, 0 running, 1 failed" in caption


def test_a_trial_whose_worker_died_goes_on_and_has_not_ended(search, tmp_path):
    progress, searcher, _ = search()
    trial = started(progress, searcher, "a")
    searcher.on_trial_complete("a", error=True)
    note_death(open_study(tmp_path), 0, "a", "ActorDiedError: gone")  # by the recorder, which is asked first
    failed(tmp_path, progress, trial, rays.ActorDiedError())
    rows, caption = table(progress)
    assert rows == {} and "0 of 8 trials ended" in caption


def test_one_that_died_when_it_had_been_trained_is_complete(search, tmp_path):
    progress, searcher, _ = search()
    trial = started(progress, searcher, "a")
    report(progress, trial, 8, 0.9, 3e-6, fully_trained=True)
    searcher.on_trial_complete("a", trial.last_result)
    failed(tmp_path, progress, trial, rays.ActorDiedError())
    rows, caption = table(progress)
    assert rows["0"][1] == "complete" and "1 of 8 trials ended, 0 running, 0 failed" in caption


@pytest.mark.parametrize(("width", "terminal"), [(120, False), (60, True)])
def test_no_terminal_or_a_narrow_one_has_plain_lines(search, tmp_path, width, terminal):
    progress, searcher, console = search(width, terminal)
    finish(progress, searcher, started(progress, searcher, "a"), 0.9, 3e-6)
    trial = started(progress, searcher, "b")
    searcher.on_trial_complete("b", error=True)
    failed(tmp_path, progress, trial, ValueError("[red]loss[/red] is nan"))
    assert console.export_text().splitlines() == [
        "[0/8] trial 0 dense started",
        "[1/8] trial 0 dense complete epoch 8/8, val_accuracy 90.00 %, 3.00 mWh",
        "[1/8] trial 1 dense started",
        "[2/8] trial 1 dense failed: ValueError: [red]loss[/red] is nan",
    ]


def test_a_long_study_keeps_the_newest_and_the_front_in_view(search):
    progress, searcher, _ = search(trials=12)
    for number in range(14):
        accuracy, kwh = (0.9, 1e-6) if number == 0 else (0.5, 2e-6 + number * 1e-8)
        finish(progress, searcher, started(progress, searcher, f"t{number}"), accuracy, kwh)
    rows, _ = table(progress)
    assert list(rows) == ["0", *map(str, range(7, 14))]
