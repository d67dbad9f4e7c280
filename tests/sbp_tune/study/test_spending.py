import pytest
from hypothesis import given
from hypothesis import strategies as st

from sbp_tune.study.spending import Spending, elapsed_s


def row(epoch, kwh, seconds=1.0):
    return {"epoch": epoch, "kwh": kwh, "time_this_iter_s": seconds}


def test_energy_that_was_reported_is_counted_once():
    spending = Spending()
    for epoch in (1, 2, 3):
        spending.add(0, row(epoch, 2.0 * epoch))
        spending.add(1, row(epoch, 1.0 * epoch, seconds=5.0))
    assert spending.kwh == 9.0 and spending.of(0) == 6.0 and spending.of(7) == 0.0
    assert spending.trials[0].epoch_kwh == 2.0 and spending.trials[1].epoch_s == 5.0 and spending.trials[1].done == 3


def test_epochs_that_a_resumed_trial_runs_again_count_again():
    spending = Spending()
    for epoch, kwh in [(1, 1.0), (2, 2.0), (3, 3.0)]:
        spending.add(0, row(epoch, kwh))
    for epoch, kwh in [(2, 2.5), (3, 3.5), (4, 4.5)]:  # from the checkpoint of epoch 1
        spending.add(0, row(epoch, kwh))
    assert spending.kwh == pytest.approx(3.0 + 3.5)
    assert spending.trials[0].done == 4 and spending.trials[0].epoch_kwh == pytest.approx(4.5 / 4)
    spending.add(0, row(1, 1.0))  # afresh, without a checkpoint
    assert spending.kwh == pytest.approx(7.5) and spending.trials[0].done == 1


def test_what_the_ledger_knows_beyond_the_reports_counts_once_however_often_it_is_read():
    spending = Spending()
    spending.add(0, row(1, 1.0))
    for _ in range(2):
        spending.bill(0, 1.4)  # a crash cut the second epoch
        spending.bill(1, 0.3)  # failed in its first epoch
    assert spending.kwh == pytest.approx(1.7) and spending.of(1) == 0.3
    spending.add(0, row(2, 2.0))
    assert spending.kwh == pytest.approx(2.7)
    spending.bill(0, 1.0)  # less than was reported: nothing was lost
    assert spending.kwh == pytest.approx(2.3)


def test_what_is_not_measured_has_no_cost_per_epoch():
    spending = Spending()
    spending.add(0, {"epoch": 1, "kwh": None})
    assert spending.kwh == 0 and spending.trials[0].epoch_kwh is None


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 5), st.floats(0, 10)), max_size=30))
def test_the_sum_is_that_of_the_trials_and_never_falls(reports):
    spending, before = Spending(), 0.0
    for number, epoch, kwh in reports:
        spending.add(number, row(epoch, kwh))
        assert spending.kwh >= before
        before = spending.kwh
    assert spending.kwh == pytest.approx(sum(spending.of(number) for number in range(3)))


@pytest.mark.parametrize(
    ("starts", "reported", "seconds"),
    [
        ([], [], 0),
        ([[100, 160]], [120], 60),
        ([[100, 160], [1000, 1030]], [120, 1020], 90),
        ([[100, 100]], [130, 170], 70),  # killed: its last report is what is known
        ([[100, 100], [1000, 1030]], [130, 1020], 60),
        ([[100, 100], [1000, 1000]], [], 0),
    ],
)
def test_hours_are_those_of_all_starts(starts, reported, seconds):
    assert elapsed_s(starts, reported) == seconds
