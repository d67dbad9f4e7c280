from types import SimpleNamespace

import pytest

from sbp_tune.errors import EpochTimeout
from sbp_tune.study.ray_errors import LostWorker
from sbp_tune.study.retries import is_death
from sbp_tune.study.timeouts import EpochWatch


class Trial:
    def __init__(self, name, **config):
        self.trial_id, self.config, self.told = name, config, []

    def handle_error(self, error):
        self.told.append(error)


@pytest.fixture
def watch():
    """A watch of 10 s; `.now` is its time, `.killed` the trials whose workers it has killed, look() what Ray calls."""
    clock = SimpleNamespace(now=100.0)
    killed = []
    made = EpochWatch(10.0, lambda trial: killed.append(trial.trial_id), clock=lambda: clock.now)

    def wait(seconds):
        for _ in range(int(seconds)):  # Ray calls it at least as often
            clock.now += 1
            made.on_step_end(0, [])

    def busy(seconds):
        clock.now += seconds
        made.on_step_end(0, [])

    return SimpleNamespace(callback=made, killed=killed, wait=wait, busy=busy)


def test_an_epoch_may_take_its_time_and_no_longer(watch):
    trial = Trial("a")
    watch.callback.on_trial_start(0, [], trial)
    for epoch in (1, 2):
        watch.wait(9)
        watch.callback.on_trial_result(0, [], trial, {"epoch": epoch})
    watch.wait(10)
    assert watch.killed == []
    watch.wait(5)
    assert watch.killed == ["a"]  # once
    watch.callback.on_trial_error(0, [], trial)
    [error] = trial.told
    assert isinstance(error, LostWorker) and is_death(error.cause) and isinstance(error.cause, EpochTimeout)
    assert str(error) == "epoch 3 took longer than 10 s: killed"


def test_the_epoch_of_a_trial_that_goes_on_is_known_from_its_first_report(watch):
    trial = Trial("a", resume_from=["checkpoint"])
    watch.callback.on_trial_start(0, [], trial)
    watch.wait(11)
    watch.callback.on_trial_error(0, [], trial)
    assert str(trial.told[0]) == "the epoch that it went on with took longer than 10 s: killed"


def test_others_are_left_alone_and_an_end_of_another_kind_keeps_its_reason(watch):
    done, other, dead = Trial("done"), Trial("other"), Trial("dead")
    for trial in (done, other, dead):
        watch.callback.on_trial_start(0, [], trial)
    watch.callback.on_trial_complete(0, [], done)
    watch.callback.on_trial_error(0, [], dead)
    watch.wait(11)
    assert watch.killed == ["other"] and dead.told == []


def test_a_driver_that_was_busy_itself_blames_nobody(watch):
    """A sampler can take minutes; what trials reported meanwhile has not been read."""
    trial = Trial("a")
    watch.callback.on_trial_start(0, [], trial)
    watch.wait(5)
    watch.busy(60)
    watch.wait(3)  # and as much time as passes between two looks
    assert watch.killed == []
    watch.wait(5)
    assert watch.killed == ["a"]
