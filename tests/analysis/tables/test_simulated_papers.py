"""The papers' study files, run whole by --simulate on a real Ray, then printed."""

import pytest
from typer.testing import CliRunner

from sbp_tune.cli import app
from sbp_tune.study.results import load_study

run = CliRunner().invoke


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "trials", "options", "last"),
    [
        ("feature_ranked_2024", 18, ["--set", "config.epochs=3"], "vgg19"),
        ("sparse_backprop_2025", 60, [], "mobilenet_v2"),
    ],
)
def test_a_papers_file_is_run_and_printed(name, trials, options, last, tmp_path, ray_address):
    options = [*options, "--name", "played", "--results", str(tmp_path), "--set", "config.data.root=/nowhere"]
    searched = run(app, ["search", name, "--simulate", *options])
    assert searched.exit_code == 0, searched.output
    assert len(load_study(tmp_path / "played").trials) == trials
    printed = run(app, ["tables", "played", "--results", str(tmp_path), "--with-published"])
    assert printed.exit_code == 0, printed.output
    for words in (
        last,
        "Simulated, nothing was trained or measured",
        "[a] Published, Table",
        "modelled",
        "energy saved",
    ):
        assert words in printed.output
    assert "nan" not in printed.output
