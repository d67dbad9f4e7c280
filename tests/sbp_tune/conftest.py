"""Shared by the tests of the package."""

import sys

import pytest


@pytest.fixture(autouse=True)
def runs_end_with_their_test(monkeypatch):
    """A run that is left open meters on, in a thread that reads every process of the machine once a second."""
    module = sys.modules.get("sbp_tune.training")
    if module is None:
        yield
        return
    opened, made = [], module.Training.__init__

    def make(self, *args, **options):
        made(self, *args, **options)
        opened.append(self)

    monkeypatch.setattr(module.Training, "__init__", make)
    yield
    for run in opened:
        run.close()
