"""A config that does not fit, from the allocation that is refused to what the search makes of it, on a real Ray."""

import pytest
from typer.testing import CliRunner

from sbp_tune.cli import app
from sbp_tune.study.results import load_study

STUDY = """
name: hungry
config:
  data: {name: digits, subset: 128, batch_size: {choice: [16, 64]}}
  model: {name: 'hungry:Hungry'}
  optimizer: {lr: {log_uniform: [0.01, 0.1]}}
  epochs: 1
baselines:
  - {data.batch_size: 64}
search: {trials: 6, sampler: random, concurrent: 1}
resources: {cpu: 1, gpu: 0}
"""


@pytest.mark.slow
def test_what_does_not_fit_fails_by_name_and_the_search_goes_on_without_the_like(tmp_path, ray_address):
    (tmp_path / "hungry.yaml").write_text(STUDY)
    command = ["search", str(tmp_path / "hungry.yaml"), "--results", str(tmp_path), "--address", ray_address]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    trials = load_study(tmp_path / "hungry").trials
    assert trials["state"].tolist() == ["failed"] + ["complete"] * 6
    assert trials["error"][0].startswith("out of memory at batch size 64: peak ") and " GB of " in trials["error"][0]
    assert trials["error"][0] in " ".join(result.output.split())  # the terminal says it too
    assert trials["config.data.batch_size"].tolist() == [64] + [16] * 6  # no larger batch was tried again
