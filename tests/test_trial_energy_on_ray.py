"""Energy that adds up, on a real Ray: several trials and attempts on a node with four GPUs that only its meter has."""

import signal
import subprocess
import sys
import threading
import time

import pytest
import ray
from typer.testing import CliRunner

from sbp_tune.cli import app
from sbp_tune.energy import node_actor
from sbp_tune.energy.attribution import attribute
from sbp_tune.energy.invariants import check
from sbp_tune.energy.ledger import read_ledger
from sbp_tune.energy.records import EpochMark, Gap, LeaseOpened
from sbp_tune.study.ledger import ledger_folder
from sbp_tune.study.results import load_study

STUDY = """
name: tiny
trainable: fake_gpus:OnFakeGpus
config:
  data: {name: digits, subset: 256, batch_size: 32}
  model: {args: {width: 4}}
  device: cpu
  epochs: 3
  seed: {grid: [0, 1, 2]}
resources: {cpu: 1, gpu: 1}
energy: {country: IRL}
"""
KWH = 3.6e6
WATTS = (40.0, 30.0, 20.0, 10.0)

run = CliRunner().invoke


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("studies")
    (path / "tiny.yaml").write_text(STUDY)
    return path


@pytest.fixture(autouse=True)
def fake_gpus(monkeypatch):
    monkeypatch.setenv(node_actor.COUNTERS, "fake_gpus:counters")


@pytest.fixture
def search(folder, ray_address):
    def start(name, *changes):
        options = [option for change in changes for option in ("--set", change)]
        command = ["search", str(folder / "tiny.yaml"), "--results", str(folder), "--name", name]
        return run(app, [*command, "--address", ray_address, *options])

    return start


def settled(path):
    """Bill and table of a study, after all that must hold of both."""
    records = list(read_ledger(ledger_folder(path)))
    bill = attribute(records)
    check(bill, records)  # trials and overhead are the machine, and eight more
    trials = load_study(path).trials.set_index("trial")
    for number, trial in bill.trials.items():
        row = trials.loc[int(number)]
        assert (row["kwh"], row["kwh_wasted"]) == (trial.kwh, trial.kwh_wasted)
        assert len(trial.attempts) <= row["attempts"]  # one may have been killed before it began
        assert trial.kwh == pytest.approx(sum(attempt.kwh for attempt in trial.attempts))
    epochs = load_study(path).epochs
    for number, row in trials[trials["state"] == "complete"].iterrows():
        told = epochs[(epochs["trial"] == number)].iloc[-1]["kwh"]  # what the search was told
        assert told == pytest.approx(row["kwh"] - row["kwh_wasted"], rel=0.1)  # the lease ends a moment later
        assert told <= row["kwh"] - row["kwh_wasted"] + 1e-15
    return bill, trials


def when(path, epoch, act):
    """Calls act(lease) on a thread, once a trial has finished so many epochs."""

    def watch():
        end = time.monotonic() + 180
        while time.monotonic() < end:
            records = list(read_ledger(ledger_folder(path), damage=[]))
            marks = {record.lease for record in records if isinstance(record, EpochMark) and record.epoch >= epoch}
            for lease in (record for record in records if isinstance(record, LeaseOpened)):
                if lease.lease in marks:
                    act(lease)
                    return
            time.sleep(0.05)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def meters(path):
    prefix = node_actor._prefix(ledger_folder(path))
    return [actor for actor in ray.util.list_named_actors(all_namespaces=True) if actor["name"].startswith(prefix)]


@pytest.mark.slow
def test_gpus_held_alone_are_billed_whole(search, folder):
    result = search("exclusive")
    assert result.exit_code == 0, result.output
    bill, trials = settled(folder / "exclusive")
    assert trials["state"].tolist() == ["complete"] * 3 and (trials["kwh_wasted"] == 0).all()
    for trial in bill.trials.values():
        [attempt] = trial.attempts
        [(_, fraction)] = attempt.lease.gpus.items()
        assert fraction == 1 and not trial.shared and attempt.reason == "finished"
        assert attempt.components["gpu"].source == "counter"
        watts = trial.components["gpu"].kwh * KWH / trial.seconds
        assert min(abs(watts - power) / power for power in WATTS) < 0.01
    assert (trials["kwh_gpu"] > 0).all() and trials["kwh_gpu_source"].eq("counter").all()
    assert bill.driver.kwh > 0 and bill.idle.components["gpu"].kwh > 0
    leases = [record for record in read_ledger(ledger_folder(folder / "exclusive")) if isinstance(record, LeaseOpened)]
    workers = {lease.pid for lease in leases if lease.trial is not None}
    assert len([lease for lease in leases if lease.trial is None and lease.pid in workers]) == 3  # setting up
    assert meters(folder / "exclusive") == []


@pytest.mark.slow
def test_half_a_gpu_each_is_marked_as_shared(search, folder):
    result = search("half", "resources.gpu=0.5")
    assert result.exit_code == 0, result.output
    bill, trials = settled(folder / "half")
    assert trials["state"].tolist() == ["complete"] * 3
    for trial in bill.trials.values():
        assert list(trial.attempts[0].lease.gpus.values()) == [0.5] and trial.shared
        assert 0 < trial.components["gpu"].kwh * KWH / trial.seconds <= WATTS[0] * 1.01


@pytest.mark.slow
def test_without_gpu_all_gpus_are_idle(search, folder):
    result = search("cpu", "resources.gpu=0", "config.seed={grid: [0]}")
    assert result.exit_code == 0, result.output
    bill, trials = settled(folder / "cpu")
    assert set(bill.trials["0"].components) == {"cpu", "ram"} and trials["kwh_gpu"].isna().all()
    assert bill.idle.components["gpu"].kwh == pytest.approx(sum(WATTS) * bill.seconds / KWH, rel=1e-3)


@pytest.mark.slow
def test_a_budget_stops_trials_and_their_energy_counts(search, folder):
    result = search("budget", "budget.kwh=1e-12", "config.epochs=50")
    assert result.exit_code == 1
    bill, trials = settled(folder / "budget")
    begun = trials.loc[[int(number) for number in bill.trials]]  # one may be stopped before its first epoch
    assert set(trials["state"]) == {"stopped"} and len(begun) > 0 and (begun["kwh"] > 0).all()
    assert {attempt.reason for trial in bill.trials.values() for attempt in trial.attempts} == {"stopped"}
    assert meters(folder / "budget") == []


@pytest.mark.slow
def test_a_trial_whose_worker_is_killed_goes_on_and_nothing_is_lost_or_counted_twice(search, folder):
    result = search("once", "trainable=fake_gpus:DeadlyOnce")
    assert result.exit_code == 0, result.output
    bill, trials = settled(folder / "once")
    assert trials["state"].tolist() == ["complete"] * 3 and trials["epoch"].tolist() == [3] * 3
    assert trials["attempts"].tolist() == [1, 2, 1]
    assert [len(bill.trials[number].attempts) for number in ("0", "1", "2")] == [1, 2, 1]
    first, second = bill.trials["1"].attempts
    assert (first.reason, second.reason) == ("died", "finished")
    assert second.lease.continued_epoch == 1  # the second was trained and metered, and neither reported nor saved
    assert first.kwh >= first.epochs[2] * (1 - 1e-12) > first.checkpoints[1] > 0
    assert bill.trials["1"].kwh_wasted == pytest.approx(first.kwh - first.checkpoints[1])
    assert bill.trials["1"].kwh == pytest.approx(first.kwh + second.kwh)
    assert "trial 1 dense will go on, its worker died: ActorDiedError" in result.output


@pytest.mark.slow
def test_a_trial_that_the_scheduler_stops_is_billed_to_its_end_and_not_until_its_process_is_used_again(search, folder):
    path = folder / "hopeless"
    one_by_one = ("resources.cpu=2", "config.seed={grid: [0, 1]}")
    search("hopeless", "trainable=fake_gpus:Hopeless", *one_by_one, "search={scheduler: asha, grace_period: 1}")
    bill, trials = settled(path)
    assert trials["error"].tolist() == ["val_accuracy is nan"] * 2
    reused = float((ledger_folder(path) / "reused").read_text())
    [attempt] = bill.trials["0"].attempts
    assert attempt.reason == "stopped" and list(attempt.epochs) == [1]
    assert attempt.ended < reused


@pytest.mark.slow
def test_a_trial_that_kills_its_worker_every_time_is_given_up(search, folder):
    path = folder / "deadly"
    result = search("deadly", "trainable=fake_gpus:Deadly", "search.max_failures=1", "config.epochs=5")
    assert result.exit_code == 0, result.output
    bill, trials = settled(path)
    assert trials["state"].tolist() == ["complete", "failed", "complete"]
    assert trials["attempts"].tolist() == [1, 2, 1]
    assert trials["error"][1].startswith("given up after 2 attempts that died: ActorDiedError")
    assert [attempt.reason for attempt in bill.trials["1"].attempts] == ["died", "died"]


@pytest.mark.slow
def test_a_killed_meter_is_replaced_and_no_trial_notices(search, folder):
    path = folder / "meter"

    def kill(_):
        [found] = meters(path)
        ray.kill(ray.get_actor(found["name"], found["namespace"]), no_restart=False)

    thread = when(path, 2, kill)
    result = search("meter", "trainable=fake_gpus:Slow", "config.epochs=5")
    thread.join()
    assert result.exit_code == 0, result.output
    bill, trials = settled(path)
    assert trials["state"].tolist() == ["complete"] * 3 and trials["attempts"].tolist() == [1] * 3
    assert len(bill.gaps) == 1 and all(len(trial.attempts) == 1 for trial in bill.trials.values())
    assert len([record for record in read_ledger(ledger_folder(path)) if isinstance(record, Gap)]) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "code", "reason"), [(signal.SIGKILL, -9, "died"), (signal.SIGINT, 130, "stopped")])
def test_an_ended_driver_and_its_trials_go_on_and_nothing_is_counted_twice(folder, ray_address, sent, code, reason):
    path = folder / sent.name
    command = [sys.executable, "-m", "sbp_tune.cli", "search", str(folder / "tiny.yaml"), "--name", sent.name]
    changes = ["--set", "trainable=fake_gpus:Slow", "--set", "config.epochs=6", "--set", "config.seed={grid: [0, 1]}"]
    options = ["--results", str(folder), "--address", ray_address, *changes]
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as driver:
        when(path, 3, lambda _: driver.send_signal(sent)).join()
        output = driver.communicate()[0]
    assert driver.returncode == code, output
    assert sent == signal.SIGKILL or meters(path) == []
    time.sleep(3)  # for Ray to end the trials of a dead driver, and for the meter to see it
    before, _ = settled(path)
    resumed = run(app, ["resume", str(path), "--address", ray_address])
    assert resumed.exit_code == 0, resumed.output
    bill, trials = settled(path)
    assert trials["state"].tolist() == ["complete"] * 2 and trials["attempts"].tolist() == [2, 2]
    for number, trial in bill.trials.items():
        first, second = trial.attempts
        assert (first.reason, second.reason) == (reason, "finished")
        assert first.kwh == pytest.approx(before.trials[number].attempts[0].kwh, rel=0.2)
        continued = second.lease.continued_epoch
        assert continued in first.checkpoints or continued == 0
        assert trial.kwh_wasted == pytest.approx(first.kwh - first.checkpoints.get(continued, 0.0))
    assert sent == signal.SIGINT or any(trial.kwh_wasted > 0 for trial in bill.trials.values())
    assert meters(path) == []


@pytest.mark.slow  # as test_node_actor has it, but through a whole search
def test_a_meter_that_cannot_start_is_one_line(search, folder, monkeypatch):
    monkeypatch.setenv(node_actor.COUNTERS, "fake_gpus:broken")
    result = search("broken")
    assert result.exit_code == 1
    assert "error: the energy meter of this node cannot be started: OSError: no counters here" in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.slow
def test_a_meter_that_fails_stops_the_search_and_resume_goes_on(search, folder, ray_address, monkeypatch):
    """No trial is to blame, and the others would only fail as well."""
    monkeypatch.setenv(node_actor.COUNTERS, "fake_gpus:failing")
    result = search("failing", "trainable=fake_gpus:Slow")
    assert result.exit_code == 1, result.output
    assert "error: the counters have come to an end" in result.stderr and "sbp-tune resume" in result.stderr
    assert set(load_study(folder / "failing").trials["state"]) == {"interrupted"}
    monkeypatch.setenv(node_actor.COUNTERS, "fake_gpus:counters")
    resumed = run(app, ["resume", str(folder / "failing"), "--address", ray_address])
    assert resumed.exit_code == 0, resumed.output
    _, trials = settled(folder / "failing")
    assert trials["state"].tolist() == ["complete"] * 3


@pytest.mark.slow
def test_a_meter_that_fails_at_the_end_does_not_hide_why_the_search_failed(search, folder, monkeypatch):
    stop = node_actor.stop_meters

    def fails(_):
        raise ray.exceptions.RaySystemError("no meters any more")

    def fit(_):
        raise ValueError("the search's own error")

    monkeypatch.setattr(node_actor, "stop_meters", fails)
    monkeypatch.setattr("ray.tune.Tuner.fit", fit)
    result = search("hidden")
    assert result.exit_code != 0
    assert "the search's own error" in f"{result.exception} {result.stderr}"
    stop(ledger_folder(folder / "hidden"))
