"""Every shipped study file is valid, opens with the command that runs it, and says what it is."""

import shlex
from itertools import pairwise

import pytest

from sbp_tune.study.file import load_study_file
from search_spaces import shipped_spaces, summary

SPACES = shipped_spaces()


@pytest.mark.parametrize("name", SPACES)
def test_valid_and_introduced(name):
    path = SPACES[name]
    first = path.read_text().splitlines()[0]
    assert first.startswith(f"# sbp-tune search {name}")
    assert summary(path).endswith(".") and len(summary(path)) < 130
    words = shlex.split(first)
    study = load_study_file(path, [value for flag, value in pairwise(words) if flag == "--set"])
    assert study.total_trials > 1
    configs = [study.train_config(point) for point in (*study.baselines, *study.grid) if point]
    assert any(config["sparsity"]["estimator"] == "dense" for config in configs)
    assert max(map(len, path.read_text().splitlines())) <= 120


def test_the_quickstart_is_what_the_readme_promises():
    study = load_study_file(SPACES["quickstart"])
    assert study.proposed_trials >= 16 and len(study.baselines) >= 3
    assert study.file.resources.cpu == 1 and study.file.resources.gpu == 0
    assert study.space.constants["data.name"] == "digits"
