import pytest
from typer.testing import CliRunner

from sbp_tune.cli import app
from sbp_tune.errors import InputError
from sbp_tune.study.file import Study
from sbp_tune.study.sections import SearchConfig
from sbp_tune.study.stopping import ladder_of


@pytest.fixture
def problems(make_study):
    """problems(settings of search, *replacements) -> what is wrong with the file, a line each."""

    def find(settings, *replacements):
        with pytest.raises(InputError) as error:
            make_study(("{trials: 6}", f"{{trials: 6, {settings}}}"), *replacements)
        return error.value.problems

    return find


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ("grace_period: 2", "search.grace_period: found 2, but search.scheduler is none, which stops no trial"),
        ("reduction_factor: 2", "search.reduction_factor: found 2.0, but search.scheduler is none"),
        ("brackets: 2", "search.brackets: found 2, but search.scheduler is none"),
        ("rank: crowding", "search.rank: found crowding, but search.scheduler is none"),
        ("scheduler: asha, rank: crowding", "search.rank: found crowding, but asha ranks by one objective alone"),
        (
            "scheduler: moasha, grace_period: 8",
            "search.grace_period: found 8; a first rung would be at epoch 8, "
            "but no searched trial trains longer than 8: nothing to stop",
        ),
        ("scheduler: moasha, brackets: 4", "search.brackets: found 4; a first rung would be at epoch 8, but no"),
        (
            "scheduler: moasha, reduction_factor: 3, brackets: 3",
            "search.brackets: found 3; a first rung would be at epoch 9, but no",
        ),
        ("scheduler: moasha, grace_period: 9, brackets: 3", "search.grace_period: found 9; a first rung would be at"),
        ("scheduler: moasha, grace_period: 0", "search.grace_period: found 0; input should be greater"),
        ("scheduler: moasha, reduction_factor: 1", "search.reduction_factor: found 1; input should be greater"),
        (
            "scheduler: moasha, reduction_factor: .inf",
            "search.reduction_factor: found inf; input should be a finite number",
        ),
        ("scheduler: moasha, brackets: 0", "search.brackets: found 0; input should be greater"),
        ("scheduler: moasha, rank: best", "search.rank: found 'best'; allowed: 'epsnet' or 'crowding'"),
        ("scheduler: mosha", "search.scheduler: found 'mosha'; allowed: 'none', 'moasha' or 'asha'"),
    ],
)
def test_what_would_do_nothing_is_said(problems, settings, problem):
    (line,) = problems(settings)
    assert line.startswith(f"demo.yaml: {problem}")


def test_asha_needs_a_quality(problems):
    (line,) = problems("scheduler: asha", ("search:", "objectives: {kwh: min}\nsearch:"))
    assert "search.scheduler: found asha; needs an objective besides kwh, co2_kg, train_time_s, tflop" in line


@pytest.mark.parametrize(
    ("epochs", "longest"),
    [("epochs: {choice: [2, 4, 8]}", 8), ("epochs: {int: [2, 12]}", 12), ("epochs: 5", 5), ("", 10)],
)
def test_the_longest_training_that_can_be_proposed(make_study, epochs, longest):
    study = make_study(("epochs: {choice: [2, 4, 8]}", epochs), ("epochs: 8}", "epochs: 2}"))
    assert study.longest_training == longest


@pytest.mark.parametrize(
    ("settings", "longest", "epochs"),
    [
        ({}, 100, [1, 5, 22]),
        ({}, 27, [1, 3, 9]),
        ({}, 24, [1, 3, 9]),
        ({"grace_period": 11}, 100, [11, 23, 48]),
        ({}, 5, [1, 2, 4]),  # never more than every other trial
        ({"reduction_factor": 3}, 100, [1, 3, 9, 27, 81]),
    ],
)
def test_three_rungs_unless_the_file_says_otherwise(settings, longest, epochs):
    search = SearchConfig.model_validate({"scheduler": "moasha", **settings})
    assert ladder_of(search, longest).below(0, longest) == epochs


@pytest.mark.parametrize("settings", ["scheduler: none", "scheduler: moasha, grace_period: 2, brackets: 2", "seed: 1"])
def test_the_resolved_document_is_valid_again(make_study, settings):
    """It names every default, also of settings that would do nothing if they were others."""
    study = make_study(("{trials: 6}", f"{{trials: 6, {settings}}}"))
    assert Study(study.document, "study.yaml").document == study.document


def test_the_dry_run_names_the_rungs(tmp_path):
    settings = "search={scheduler: moasha, brackets: 2}"
    result = CliRunner().invoke(
        app, ["search", "quickstart", "--dry-run", "--results", str(tmp_path), "--set", settings]
    )
    assert result.exit_code == 0, result.output
    assert "Scheduler moasha: about 1 trial in 2.52 goes on after\n  epochs 1, 3, 7\n  epochs 3, 7\n" in result.output
