"""Drivers of one study on several machines, here directories, with the storage between them."""

import re
import socket
import threading
import time
from contextlib import ExitStack

import pytest

from sbp_tune.errors import SbpTuneError
from sbp_tune.remote import Remote
from sbp_tune.study import drivers
from sbp_tune.study.drivers import latest, note_end, only_driver, taken_over
from sbp_tune.study.working import Mark, read_mark

pytestmark = pytest.mark.slow

HOST = re.sub(r"[^\w.-]", "-", socket.gethostname())


@pytest.fixture
def study(bucket, tmp_path):
    """The study, and drive(machine, known) as a driver there who knows so many before it."""
    remote = Remote(bucket).child("demo")

    def drive(machine, known=0):
        path = tmp_path / machine
        return only_driver(remote, path, read_mark(path) or Mark(remote.uri, known=known))

    return remote, drive


def refused(driving, why):
    with pytest.raises(SbpTuneError, match=why), driving:
        pytest.fail("two drivers")


def test_one_machine_at_a_time(study, tmp_path):
    remote, drive = study
    with drive("a") as mark:
        assert read_mark(tmp_path / "a") == mark and (mark.known, mark.copied) == (1, False)
        refused(drive("b"), f"^s3://.*/demo.*: another process runs this study at present, on {HOST}, last seen")
        assert latest(remote).lives and taken_over(remote, mark) is None
    refused(drive("b"), "another process runs this study at present")  # it may only be cut off
    note_end(remote, mark)
    assert not latest(remote).lives
    refused(drive("b"), rf"/b: the study was run on {HOST} since this directory was fetched; `sbp-tune resume 's3:")
    with drive("b", known=1) as later:
        assert later.known == 2 and taken_over(remote, mark) == HOST and taken_over(remote, later) is None
        refused(drive("a"), "another process runs this study at present")
    assert [name for name in remote.child("drivers").files() if name.endswith(".asks")] == []


def test_a_directory_whose_driver_was_killed_goes_on_at_once(study):
    _, drive = study
    with drive("a"):
        pass
    with drive("a") as mark:
        assert mark.known == 2


def test_a_driver_that_is_silent_is_taken_for_dead(study, monkeypatch):
    remote, drive = study
    with drive("a"):
        pass
    monkeypatch.setattr(drivers, "STALE_S", 0.0)
    assert not latest(remote).lives
    with drive("b", known=1) as mark:
        assert mark.known == 2


def test_a_driver_that_lives_says_so(study, monkeypatch):
    monkeypatch.setattr(drivers, "BEAT_S", 0.2)
    remote, drive = study
    with drive("a"):
        [before] = remote.child("drivers").files().values()
        deadline = time.monotonic() + 60
        while [after := entry for entry in remote.child("drivers").files().values()] == [before]:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert after.written > before.written


def test_of_many_at_one_moment_at_most_one_runs(study):
    remote, drive = study
    barrier, running, refusals = threading.Barrier(6), [], []

    def begin(machine):
        barrier.wait()
        with ExitStack() as stack:
            try:
                running.append(stack.enter_context(drive(machine)))
            except SbpTuneError as error:
                refusals.append(str(error))
            barrier.wait()

    threads = [threading.Thread(target=begin, args=(f"machine{number}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(running) <= 1 and len(running) + len(refusals) == 6
    assert all("another process runs this study at present" in why for why in refusals)
    assert len([name for name in remote.child("drivers").files() if name.endswith(".asks")]) == 0
