"""What a budget allows, as pure decisions; on a real Ray in tests/test_budgeted_search.py."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sbp_tune.study.budget import Amount, Run, Verdict, is_used_up, need, planned, verdict

amounts = st.floats(0, 100)
maybe = st.none() | amounts
any_amount = st.builds(Amount, maybe, maybe)
UNLIMITED = Amount(None, None)


def run(*likeness, epochs=10, **done):
    return Run(likeness, epochs, **done)


@pytest.mark.parametrize(
    ("limits", "used", "needed", "running", "expected"),
    [
        (Amount(10, None), Amount(0, 0), Amount(None, None), [], Verdict.START),  # nothing is known yet
        (Amount(10, None), Amount(7, 0), Amount(3, 1), [], Verdict.START),
        (Amount(10, None), Amount(7.1, 0), Amount(3, 1), [], Verdict.STOP),
        (Amount(10, None), Amount(5, 0), Amount(3, 1), [Amount(2, 1)], Verdict.START),
        (Amount(10, None), Amount(5, 0), Amount(3, 1), [Amount(2, 1), Amount(1, 1)], Verdict.WAIT),
        (Amount(10, None), Amount(8, 0), Amount(3, 1), [Amount(2, 1)], Verdict.STOP),
        (Amount(10, None), Amount(5, 0), Amount(3, 1), [Amount(None, None)], Verdict.START),
        (Amount(None, 60), Amount(5, 30), Amount(3, 30), [Amount(2, 30)], Verdict.START),  # beside each other
        (Amount(None, 60), Amount(5, 31), Amount(3, 30), [], Verdict.STOP),
        (Amount(10, 60), Amount(9, 0), Amount(3, 1), [], Verdict.STOP),
        (UNLIMITED, Amount(1e9, 1e9), Amount(1e9, 1e9), [], Verdict.START),
    ],
)
def test_the_next_trial_starts_waits_or_ends_the_search(limits, used, needed, running, expected):
    assert verdict(limits, used, needed, running) is expected


@given(any_amount, any_amount, any_amount, st.lists(any_amount, max_size=4))
def test_what_starts_fits_and_nothing_waits_for_ever(limits, used, needed, running):
    answer = verdict(limits, used, needed, running)
    if answer is Verdict.START and limits.kwh is not None and needed.kwh is not None:
        assert (used.kwh or 0) + needed.kwh + sum(other.kwh or 0 for other in running) <= limits.kwh + 1e-9
    if answer is Verdict.WAIT:
        assert verdict(limits, used, needed, []) is Verdict.START  # once all that runs has ended at no cost


@given(any_amount, any_amount, any_amount, st.lists(any_amount, max_size=4), amounts)
def test_a_stop_is_for_good_and_a_larger_budget_never_takes_away(limits, used, needed, running, more):
    order = [Verdict.STOP, Verdict.WAIT, Verdict.START]
    rank = order.index(verdict(limits, used, needed, running))
    spent = Amount((used.kwh or 0) + more, (used.seconds or 0) + more)
    assert order.index(verdict(limits, spent, needed, running)) <= rank
    raised = Amount(*(None if limit is None else limit + more for limit in limits))
    assert order.index(verdict(raised, used, needed, running)) >= rank


@given(any_amount, any_amount)
def test_used_up_is_when_no_trial_of_any_cost_starts(limits, used):
    tiny = Amount(1e-6, 1e-6)
    if is_used_up(limits, used):
        assert verdict(limits, used, tiny, []) is Verdict.STOP


def test_a_trial_takes_what_those_most_alike_took():
    seen = [
        run("digits", "mask", epoch_kwh=1.0, epoch_s=10.0),
        run("digits", "mask", epoch_kwh=3.0, epoch_s=30.0),
        run("digits", "mask", epoch_kwh=2.0, epoch_s=90.0),
        run("digits", "grid", epoch_kwh=0.5, epoch_s=5.0),
        run("cifar10", "mask", epoch_kwh=40.0, epoch_s=400.0),
        run("digits", "layer"),  # has not finished an epoch
    ]
    assert need(run("digits", "mask", epochs=4), seen) == Amount(8.0, 120.0)
    assert need(run("digits", "grid"), seen) == Amount(5.0, 50.0)
    assert need(run("digits", "layer"), seen) == Amount(15.0, 200.0)  # the median of its data and network
    assert need(run("flowers", "mask"), seen) == Amount(20.0, 300.0)  # of all
    assert need(run("digits", "mask"), []) == Amount(None, None)


def test_a_trial_that_runs_takes_what_its_own_epochs_took():
    begun = run("digits", "mask", epochs=10, done=4, epoch_kwh=2.0)
    assert need(begun, [run("digits", "mask", epoch_kwh=9.0, epoch_s=7.0)]) == Amount(12.0, 42.0)
    assert need(begun._replace(done=12), []).kwh == 0


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xy"), maybe), max_size=8), st.integers(0, 20))
def test_an_estimate_lies_among_what_was_seen(rows, epochs):
    seen = [run(a, b, epoch_kwh=kwh) for a, b, kwh in rows]
    known = [kwh for _, _, kwh in rows if kwh is not None]
    estimate = need(run("a", "x", epochs=epochs), seen).kwh
    if not known:
        assert estimate is None
    else:
        slack = 1e-9 * (1 + max(known) * epochs)
        assert min(known) * epochs - slack <= estimate <= max(known) * epochs + slack


def test_trials_of_one_network_data_set_and_estimator_are_alike(make_study):
    study = make_study()
    one, other = (planned(study.train_config(study.space.point({"sparsity.p0": p0}))) for p0 in (0.3, 0.9))
    dense = planned(study.train_config(study.baselines[0]))
    assert one.likeness == other.likeness and dense.likeness[0] == one.likeness[0] and dense.likeness != one.likeness
    assert dense.epochs == 8
