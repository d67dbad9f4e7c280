"""The node's meter as an actor on a real Ray: started once, made again when it dies, given up when it hangs."""

import os
import signal
import threading
import time

import psutil
import pytest
import ray

from sbp_tune.config import EnergyConfig
from sbp_tune.energy import node_actor
from sbp_tune.energy.node_actor import NodeLease, end_attempt, stop_meters
from sbp_tune.errors import SbpTuneError
from sbp_tune.remote import Remote
from sbp_tune.study.ledger import study_bill


@pytest.fixture
def lease(tmp_path, ray_address):
    """make(trial): a lease of this process on the meter of a study in tmp_path, which is stopped afterwards."""
    yield lambda trial="0", **options: NodeLease(
        tmp_path / "energy", trial, options.get("attempt", 0), EnergyConfig(cpu_idle_w=1, cpu_busy_w=5), {}, 1
    )
    stop_meters(tmp_path / "energy")


def meters(folder):
    prefix = node_actor._prefix(folder)
    return [actor for actor in ray.util.list_named_actors(all_namespaces=True) if actor["name"].startswith(prefix)]


def pid_of(folder):
    """Of the process that has the ledger's lock file open."""
    [lock] = folder.glob(".ledger-*.lock")
    for process in psutil.process_iter():
        try:
            if any(file.path == str(lock) for file in process.open_files()):
                return process.pid
        except psutil.Error:
            continue
    raise AssertionError


def test_leases_of_a_node_have_one_meter_and_it_ends_with_the_study(lease, tmp_path):
    first, second = lease("0"), lease("1")
    first.start()
    second.start()
    assert len(meters(tmp_path / "energy")) == 1
    told = first.mark(1)
    assert told.kwh > 0 and set(told.components) == {"cpu", "ram"}
    last = first.stop("finished")
    second.stop("stopped")
    assert stop_meters(tmp_path / "energy") == [] and meters(tmp_path / "energy") == []
    bill, problems = study_bill(tmp_path)
    assert problems == () and {name: trial.attempts[0].reason for name, trial in bill.trials.items()} == {
        "0": "finished",
        "1": "stopped",
    }
    assert bill.trials["0"].epochs[1] == pytest.approx(told.kwh)
    assert bill.trials["0"].kwh == pytest.approx(last.kwh) and last.kwh > told.kwh


def test_whoever_stops_a_trial_ends_its_lease_and_no_other(lease, tmp_path):
    stopped, other = lease("0"), lease("1")
    stopped.start()
    other.start()
    end_attempt(tmp_path / "energy", "0", 0)
    other.mark(1)  # calls of one process come in order
    with pytest.raises(SbpTuneError, match=r"lease 0-0-\w+ has ended"):
        stopped.mark(1)
    stopped.stop("finished")
    bill, problems = study_bill(tmp_path)
    assert problems == () and bill.trials["0"].attempts[0].reason == "stopped"
    assert bill.trials["1"].attempts[0].reason is None
    end_attempt(tmp_path / "another study", "1", 0)
    other.mark(2)


@pytest.mark.parametrize("death", ["SIGKILL", "restarted by Ray", "gone for good"])
def test_a_meter_that_dies_is_made_again_and_the_lease_goes_on(lease, tmp_path, death):
    mine = lease()
    mine.start()
    before = mine.mark(1)
    [found] = meters(tmp_path / "energy")
    if death == "SIGKILL":
        os.kill(pid_of(tmp_path / "energy"), signal.SIGKILL)
    else:
        ray.kill(ray.get_actor(found["name"], found["namespace"]), no_restart=death == "gone for good")
    after = mine.mark(2)
    mine.stop("finished")
    assert after.kwh > before.kwh and len(meters(tmp_path / "energy")) == 1
    bill, problems = study_bill(tmp_path)
    [attempt] = bill.trials["0"].attempts
    assert problems == () and len(bill.gaps) == 1 and attempt.reason == "finished"
    assert attempt.epochs == {1: pytest.approx(before.kwh), 2: pytest.approx(after.kwh)}


def test_a_study_can_be_metered_again_at_once(lease, tmp_path):
    for attempt in range(2):
        mine = lease(attempt=attempt)
        mine.start()
        mine.mark(attempt + 1)
        mine.stop("stopped")
        assert stop_meters(tmp_path / "energy") == []
    assert len(study_bill(tmp_path).bill.trials["0"].attempts) == 2


@pytest.mark.slow
def test_a_meter_that_hangs_is_given_up_and_ended(lease, tmp_path, monkeypatch):
    mine = lease()
    mine.start()
    monkeypatch.setattr(node_actor, "ANSWER_S", 1.0)
    monkeypatch.setattr(node_actor, "STOP_S", 1.0)
    pid = pid_of(tmp_path / "energy")
    os.kill(pid, signal.SIGSTOP)
    for call in (lambda: mine.stop("finished"), lambda: mine._call("mark", mine._name, 1, True, timeout=1.0)):
        with pytest.raises(SbpTuneError, match="the energy meter of this node has not answered for"):
            call()
    [problem] = stop_meters(tmp_path / "energy")
    assert "did not stop" in problem
    deadline = time.monotonic() + 60
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert meters(tmp_path / "energy") == []


@pytest.mark.parametrize(
    ("counters", "why"),
    [
        ("fake_gpus:broken", "OSError: no counters here"),
        ("fake_gpus:nothing", "SBP_TUNE_COUNTERS=fake_gpus:nothing: needs module:function"),
    ],
)
def test_a_meter_that_cannot_start_is_one_line(lease, monkeypatch, counters, why, capfd):
    monkeypatch.setenv(node_actor.COUNTERS, counters)
    with pytest.raises(SbpTuneError, match=f"^the energy meter of this node cannot be started: {why}") as error:
        lease().start()
    assert "\n" not in str(error.value)
    assert "Traceback" not in "".join(capfd.readouterr())


def test_a_folder_that_cannot_be_written_is_one_line(lease, tmp_path):
    (tmp_path / "energy").write_text("")
    with pytest.raises(SbpTuneError, match=r"cannot be started: .*: no ledger can be written here: \[Errno"):
        lease().start()


def test_what_the_meter_says_of_a_lease_arrives_as_its_own_error(lease):
    mine = lease()
    mine.start()
    mine.stop("finished")
    with pytest.raises(SbpTuneError, match=r"^lease 0-0-\w+ has ended"):
        mine.mark(1)


def test_a_meter_that_nobody_needs_ends_itself_and_another_goes_on(lease, tmp_path, monkeypatch):
    """As on a cluster, when the search was killed and is resumed later."""
    monkeypatch.setattr(node_actor, "IDLE_S", 0.5)
    mine = lease()
    mine.start()
    time.sleep(2)
    before = mine.mark(1)  # a lease keeps it
    mine.stop("stopped")
    deadline = time.monotonic() + 60
    while meters(tmp_path / "energy"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    again = lease(attempt=1)
    again.start(epoch=1)
    again.mark(2)
    bill, problems = study_bill(tmp_path)
    first, second = bill.trials["0"].attempts
    assert problems == () and len(bill.gaps) == 1
    assert first.epochs[1] == pytest.approx(before.kwh) and second.epochs[2] > 0


def test_many_processes_start_at_once(lease, tmp_path):
    leases = [lease(str(number)) for number in range(4)]
    threads = [threading.Thread(target=one.start) for one in leases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one in leases:
        one.mark(1)
    assert len(meters(tmp_path / "energy")) == 1


def test_a_ledger_on_object_storage(bucket, tmp_path, ray_address):
    remote = Remote(bucket).child("demo", "energy")
    mine = NodeLease(remote.uri, "0", 0, EnergyConfig(cpu_idle_w=1, cpu_busy_w=5), {}, 1)
    try:
        mine.start()
        told = mine.mark(1)
        end_attempt(remote.uri, "0", 0)
    finally:
        assert stop_meters(remote.uri) == []
    for name in remote.files():
        remote.download(name, tmp_path / "energy" / name)
    bill, problems = study_bill(tmp_path)
    [attempt] = bill.trials["0"].attempts
    assert problems == () and attempt.reason == "stopped" and attempt.epochs == {1: pytest.approx(told.kwh)}
