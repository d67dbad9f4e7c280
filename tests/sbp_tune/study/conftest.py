"""A study file of every domain, as text to vary."""

import optuna
import pytest

from sbp_tune.files import parse_yaml
from sbp_tune.study import storage
from sbp_tune.study.file import Study

STUDY = """
name: demo
config:
  data: {name: digits, batch_size: 64}
  optimizer: {name: sgd, lr: {log_uniform: [0.02, 0.5]}}
  epochs: {choice: [2, 4, 8]}
  seed: {int: [0, 3]}
  sparsity:
    estimator: {choice: [mask]}
    schedule: {choice: [constant, linear, exponential]}
    p0: {uniform: [0.1, 1.0]}
    k: {log_uniform: [0.002, 0.2], when: {schedule: [linear, exponential]}}
baselines:
  - {sparsity.estimator: dense, epochs: 8}
  - {sparsity.estimator: dense, epochs: 2, optimizer: {lr: 0.5}}
search: {trials: 6}
"""


@pytest.fixture
def study_text():
    return STUDY


@pytest.fixture
def make_study():
    """make_study(old=new, ...) of the text above with pieces replaced."""

    def make(*replacements):
        text = STUDY
        for old, new in replacements:
            assert old in text
            text = text.replace(old, new)
        return Study(parse_yaml(text, "demo.yaml"), "demo.yaml")

    return make


@pytest.fixture
def storage_in_memory(monkeypatch):
    """One storage a directory, as its file would be: on a disk a suite of many searches waits for their commits."""
    storages = {}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    monkeypatch.setattr(
        storage, "_storage", lambda path, new: storages.setdefault(path, optuna.storages.InMemoryStorage())
    )
