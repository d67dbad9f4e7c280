import gc
import threading

from sbp_tune.energy.repeater import Repeater


class Counting:
    def __init__(self):
        self.calls = 0
        self.called = threading.Event()
        self.repeater = Repeater(0.001, self.count)

    def count(self):
        self.calls += 1
        self.called.set()


def test_it_calls_until_it_is_stopped():
    counting = Counting()
    assert counting.called.wait(60)
    counting.repeater.stop()
    calls = counting.calls
    assert not counting.repeater._thread.is_alive() and counting.calls == calls


def test_a_function_of_nobody_is_called_too():
    called = threading.Event()
    repeater = Repeater(0.001, lambda: called.set())
    gc.collect()
    assert called.wait(60)
    repeater.stop()


def test_what_nobody_has_any_more_is_not_kept_alive():
    counting = Counting()
    assert counting.called.wait(60)
    thread = counting.repeater._thread
    del counting
    gc.collect()
    thread.join(60)
    assert not thread.is_alive()
