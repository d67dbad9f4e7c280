"""What cannot be extended, each in one line, and nothing changed; extending itself is tested on a real Ray."""

import pytest
from typer.testing import CliRunner

from sbp_tune.cli import app
from sbp_tune.files import yaml_text
from sbp_tune.study.extend import _check_something_is_left
from sbp_tune.study.lock import only_writer
from sbp_tune.study.searcher import enqueue_fixed_points
from sbp_tune.study.storage import create_study, open_study

FINITE = (
    ("{log_uniform: [0.02, 0.5]}", "0.1"),
    ("{int: [0, 3]}", "{int: [0, 1]}"),
    ("{uniform: [0.1, 1.0]}", "0.5"),
    (
        "{log_uniform: [0.002, 0.2], when: {schedule: [linear, exponential]}}",
        "{choice: [0, 0.1], when: {schedule: linear}}",
    ),
    ("\n  - {sparsity.estimator: dense, epochs: 2, optimizer: {lr: 0.5}}", ""),
)
GRID = (*FINITE[:1], ("{int: [0, 3]}", "0"), *FINITE[2:3], ("{choice: [2, 4, 8]}", "{grid: [2, 8]}"))
GRID += (("estimator: {choice: [mask]}", "estimator: mask"), ("{choice: [constant, linear, exponential]}", "constant"))
GRID += (("    k: {log_uniform: [0.002, 0.2], when: {schedule: [linear, exponential]}}\n", ""), FINITE[-1])


@pytest.fixture
def stored(tmp_path, make_study):
    def store(*replacements):
        study = make_study(*replacements)
        (tmp_path / "study.yaml").write_text(yaml_text(study.document))
        enqueue_fixed_points(create_study(tmp_path, "demo", study.objectives, {}), study)
        return study, tmp_path

    return store


@pytest.mark.parametrize(
    ("changes", "trials", "problem"),
    [
        ((), "many", "--trials: found 'many'; needs a whole number, in all as in 64, or more as in +32"),
        ((), "-3", "--trials: found '-3'; needs a whole number, in all as in 64, or more as in +32"),
        ((), "6", "--trials: found 6; the study has 6 already, needs more than that, or +N"),
        ((), "+0", "--trials: found +0; the study has 6 already"),
        ((), "+100000", "search.trials: found 100006"),
        ((*GRID, ("search: {trials: 6}", "search: {}")), "+1", "nothing is left to propose"),
    ],
)
def test_what_cannot_be_extended(stored, changes, trials, problem):
    _, path = stored(*changes)
    before = (path / "study.yaml").read_text()
    result = CliRunner().invoke(app, ["extend", str(path), f"--trials={trials}"])
    assert result.exit_code == 2 and problem in result.stderr and len(result.stderr.splitlines()) == 1
    assert (path / "study.yaml").read_text() == before


def test_a_study_in_use_is_not_extended(stored):
    _, path = stored()
    with only_writer(path):
        result = CliRunner().invoke(app, ["extend", str(path), "--trials", "+1"])
    assert result.exit_code == 1 and "another process runs this study at present" in result.stderr


def test_a_finite_space_that_is_used_up_has_nothing_left(stored):
    study, path = stored(*FINITE)
    # schedules constant, exponential, and linear with 2 values of k; 3 epochs, 2 seeds
    assert study.space.count() == 4 * 3 * 2
    storage = open_study(path)
    storage.ask()  # the baseline
    for values in _every_point(study):
        _check_something_is_left(study, path)
        storage.ask().set_user_attr("config", study.train_config(values))
    with pytest.raises(Exception, match="all 24 points of its space have been tried; nothing is left to propose"):
        _check_something_is_left(study, path)


def _every_point(study):
    for epochs in (2, 4, 8):
        for seed in (0, 1):
            for schedule in ({"sparsity.schedule": "constant"}, {"sparsity.schedule": "exponential"}):
                yield study.space.point({"epochs": epochs, "seed": seed, **schedule})
            for k in (0, 0.1):
                yield study.space.point(
                    {"epochs": epochs, "seed": seed, "sparsity.schedule": "linear", "sparsity.k": k}
                )


def test_a_space_with_a_range_is_never_used_up(make_study):
    assert make_study().space.count() is None
