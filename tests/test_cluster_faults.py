"""What breaks on a cluster, on a real Ray of several nodes: every trial is accounted for, every kWh, every reason.

Each node is a `ray start` of its own with an address, GPUs and a meter of its own, all on this machine.
"""

import itertools
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from ray_machines import PATIENCE, Machines

from sbp_tune.energy.attribution import attribute
from sbp_tune.energy.invariants import check
from sbp_tune.energy.ledger import read_ledger
from sbp_tune.energy.records import EpochMark, Inventory, LeaseOpened, Snapshot
from sbp_tune.study.ledger import ledger_folder
from sbp_tune.study.results import load_study

pytestmark = pytest.mark.slow

STUDY = """
name: far
trainable: waiting:Waiting
config:
  data: {name: cifar10, root: nowhere}
  epochs: 5
  seed: {grid: [0, 1, 2, 3]}
resources: {cpu: 1, gpu: 1}
energy: {country: IRL}
"""

WITHOUT_PACKAGE = str(Path(__file__).parent / "modules" / "without_package")

as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can mount")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "far.yaml").write_text(STUDY)
    return tmp_path


@pytest.fixture
def cluster():
    """A head that holds no trial."""
    with Machines() as machines:
        machines.start()
        yield machines


def search(cluster, folder, *changes):
    options = [option for change in changes for option in ("--set", change)]
    run = cluster.sbp_tune("search", folder / "far.yaml", "--results", folder, *options)
    _searches.append(run)
    return run


_searches = []


def wait_for(what):
    """What `what` gives, once it gives something; a search that is not killed must not end before."""
    end = time.monotonic() + PATIENCE
    while not (found := what()):
        assert time.monotonic() < end, "it never came to that"
        assert _searches[-1].process.poll() in (None, -signal.SIGKILL), _searches[-1].output()
        time.sleep(0.05)
    return found


def records_of(path):
    """Records of a study's ledger, each with the node that it is of."""
    node = None
    for record in read_ledger(ledger_folder(path), damage=[]):
        node = record.node if isinstance(record, Inventory) else node
        yield node, record


def at_epoch(path, epoch):
    """The leases of trials that have finished so many epochs."""
    records = [record for _, record in records_of(path)]
    marks = {record.lease for record in records if isinstance(record, EpochMark) and record.epoch >= epoch}
    return [record for record in records if isinstance(record, LeaseOpened) and record.lease in marks]


def node_number(process):
    """Of the machine that a process runs on."""
    return int(psutil.Process(process).environ()["SBP_TUNE_TEST_NODE"])


def settled(path, states=("complete",) * 4):
    """Bill and table of a study that has ended, after all that must hold of both."""
    records = list(read_ledger(ledger_folder(path)))
    bill = attribute(records)
    check(bill, records)  # trials and overhead are the machines, and eight more
    study = load_study(path)
    trials = study.trials.set_index("trial")
    assert tuple(trials["state"]) == states
    assert set(trials.index) == set(map(int, bill.trials))
    for number, trial in bill.trials.items():
        row = trials.loc[int(number)]
        assert (row["kwh"], row["kwh_wasted"]) == (trial.kwh, trial.kwh_wasted)
        assert trial.kwh == pytest.approx(sum(attempt.kwh for attempt in trial.attempts))
        assert len(trial.attempts) <= row["attempts"]  # one may have been lost before it began
    lost = trials["lost_attempts"].dropna()
    report = (path / "report.html").read_text()
    assert all(f"attempt {number}:" in text for text in lost for number in range(text.count("; attempt ") + 1))
    assert not len(lost) or "Attempts that ended before their trial did" in report
    return bill, trials


def seen(path):
    """Unix times of the snapshots of each node."""
    times = defaultdict(list)
    for node, record in records_of(path):
        if isinstance(record, Snapshot):
            times[node].append(record.wall)
    return times


def test_a_node_that_is_lost_in_the_middle_of_a_trial(cluster, folder):
    cluster.start(), cluster.start()
    run, path = search(cluster, folder), folder / "far"
    lease = wait_for(lambda: at_epoch(path, 2) if path.exists() else [])[0]
    node, killed = node_number(lease.pid), time.time()
    cluster.kill(node)
    assert run.ended() == 0, run.output()
    bill, trials = settled(path)
    first, second = bill.trials[lease.trial].attempts
    assert (first.reason, second.reason) == (None, "finished") and first.node != second.node
    assert second.lease.continued_epoch in first.checkpoints and second.lease.continued_epoch > 0
    assert first.kwh > 0 and trials["attempts"].sum() == 5
    times = seen(path)[first.node]
    pauses = [after - before for before, after in itertools.pairwise(times)]
    assert killed - times[-1] < 2 * max(pauses) + 1  # one interval, on a machine that is busy
    assert "its worker died: Actor" in run.output()  # Ray says that it died, or that it cannot be reached
    assert f"Nodes: 127.0.0.{node} is gone." in run.output()
    assert trials.loc[int(lease.trial), "lost_attempts"].endswith(f"(on 127.0.0.{node})")


def test_a_node_that_joins_gets_trials_and_one_meter_of_two_is_killed(cluster, folder):
    cluster.start()
    # Longer ones: Ray gives a trial that waits to the first process that is free, and a new one takes seconds to begin.
    run = search(cluster, folder, f"config.seed={{grid: {list(range(6))}}}", "config.epochs=25")
    path = folder / "far"
    wait_for(lambda: at_epoch(path, 1) if path.exists() else [])
    added = cluster.start()
    lease = wait_for(lambda: [one for one in at_epoch(path, 2) if _is_on(one, added)])[0]
    [meter] = cluster.processes(added, "_Meter")
    meter.kill()
    assert run.ended() == 0, run.output()
    bill, trials = settled(path, ("complete",) * 6)
    assert f"Nodes: 127.0.0.{added} has joined, which holds 1 trial." in run.output()
    assert len({trial.attempts[0].node for trial in bill.trials.values()}) == 2
    assert trials["attempts"].tolist() == [1] * 6 and len(bill.gaps) == 1
    assert bill.trials[lease.trial].attempts[0].reason == "finished"


def _is_on(lease, node):
    with suppress(psutil.NoSuchProcess):
        return node_number(lease.pid) == node
    return False


def test_the_head_is_killed_with_the_driver_and_another_cluster_goes_on(folder):
    path = folder / "far"
    with Machines(RAY_gcs_rpc_server_reconnect_timeout_s="5") as first:
        head = first.start()
        first.start(), first.start()
        run = search(first, folder)
        wait_for(lambda: len(at_epoch(path, 2)) == 2 if path.exists() else False)
        first.kill(head)
        run.process.send_signal(signal.SIGKILL)
        run.process.wait()
        wait_for(lambda: not first.processes())  # without a head the other nodes end, and their trials and meters
        before = attribute(read_ledger(ledger_folder(path)))
    with Machines() as second:
        second.start(), second.start()
        resumed = second.sbp_tune("resume", path)
        assert resumed.ended() == 0, resumed.output()
    bill, trials = settled(path)
    assert sorted(trials["attempts"]) == [1, 1, 2, 2]
    for number, trial in before.trials.items():
        assert bill.trials[number].attempts[0].kwh == pytest.approx(trial.attempts[0].kwh)
        assert bill.trials[number].attempts[1].lease.continued_epoch > 0


def test_a_node_without_the_package_gets_no_trial_and_is_named(cluster, folder):
    bad = cluster.start(PYTHONPATH=WITHOUT_PACKAGE)
    run = search(cluster, folder)
    assert run.ended() == 2
    problem = f"node 127.0.0.{bad}: No module named 'sbp_tune'; install sbp-tune"
    assert f"no node can run a trial: {problem}" in run.output() and not (folder / "far").exists()
    cluster.start()
    run = search(cluster, folder)
    assert run.ended() == 0, run.output()
    settled(folder / "far")
    assert problem in run.output() and problem in load_study(folder / "far").refused_nodes[0]
    assert problem.replace("'", "&#x27;") in (folder / "far" / "report.html").read_text()


# A driver that asks no node, as where Ray places a trial on a node that has only just joined.
ASKS_NOBODY = """
from sbp_tune.cli import app
from sbp_tune.study import nodes
init = nodes.TrialNodes.__init__
nodes.TrialNodes.__init__ = lambda self, study, asked: init(self, study, asked=False)
app()
"""


def test_a_trial_on_a_node_that_nobody_asked_goes_on_elsewhere(cluster, folder):
    bad = cluster.start(cpus=2, gpus=2, PYTHONPATH=WITHOUT_PACKAGE)
    cluster.start(cpus=1, gpus=1)
    command = [sys.executable, "-c", ASKS_NOBODY, "search", str(folder / "far.yaml"), "--results", str(folder)]
    options = ["--address", cluster.address, "--set", "search.max_failures=0"]
    run = subprocess.run([*command, *options], env=cluster.environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    _, trials = settled(folder / "far")
    lost = trials["lost_attempts"].dropna()
    assert len(lost) and lost.str.startswith(f"attempt 0: node 127.0.0.{bad}: No module named").all()
    assert "will go on: node" in run.stdout


@pytest.fixture
def disk(tmp_path):
    """A disk of 300 MB."""
    path = tmp_path / "disk"
    path.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300m", "tmpfs", path], capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount")
    yield path
    subprocess.run(["umount", "--lazy", path], check=True)


@as_root
def test_a_node_whose_disk_fills_up_gets_no_more_trials(cluster, folder, disk):
    full, _ = cluster.start(TMPDIR=str(disk)), cluster.start()
    run, path = search(cluster, folder), folder / "far"
    wait_for(lambda: [one for one in at_epoch(path, 1) if _is_on(one, full)] if path.exists() else [])
    with (disk / "other").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(2**20))
    assert run.ended() == 0, run.output()
    _, trials = settled(path)
    lost = trials["lost_attempts"].dropna()
    problem = f"node 127.0.0.{full}: {disk} is full"
    assert len(lost) == 1 and lost.iloc[0].startswith(f"attempt 0: {problem}")
    assert problem in load_study(path).refused_nodes[0]
    refused = cluster.sbp_tune("search", folder / "far.yaml", "--results", folder, "--name", "again")
    assert refused.ended() == 0 and problem in refused.output()
    assert load_study(folder / "again").trials["lost_attempts"].isna().all()


@pytest.mark.parametrize(("trainable", "attempts"), [("HangsOnce", 2), ("Hangs", 2)])
def test_a_trial_that_hangs_is_killed_and_goes_on_or_is_given_up(cluster, folder, trainable, attempts):
    cluster.start(cpus=2, gpus=2)
    limits = ("resources.epoch_timeout_s=90", "search.max_failures=1")
    run, path = search(cluster, folder, f"trainable=waiting:{trainable}", *limits), folder / "far"
    assert run.ended() == 0, run.output()
    given_up = trainable == "Hangs"
    bill, trials = settled(path, ("complete", "failed" if given_up else "complete", "complete", "complete"))
    why = "epoch 2 took longer than 90 s: killed"
    assert trials["attempts"].tolist() == [1, attempts, 1, 1]
    assert trials.loc[1, "lost_attempts"].startswith(f"attempt 0: {why}")
    first, second = bill.trials["1"].attempts
    assert first.reason == "died" and second.lease.continued_epoch == 1
    # Ray gives what it kills some seconds: the last process may outlive the search, which has no other trial left.
    assert second.reason in (("died", None) if given_up else ("finished",))
    assert f"trial 1 dense will go on, its worker died: {why}" in run.output()
    if given_up:
        assert trials.loc[1, "error"] == (
            "given up after 2 attempts that died: the epoch that it went on with took longer than 90 s: killed"
        )
        assert trials.loc[1, "error"] in (path / "report.html").read_text()


def test_a_trial_that_eats_the_memory_is_killed_and_given_up(folder):
    memory = psutil.virtual_memory()
    limit = (memory.total - memory.available + 5e9) / memory.total  # Ray and the driver take 2 to 3 of these
    with Machines(RAY_memory_usage_threshold=f"{limit:.4f}", RAY_memory_monitor_refresh_ms="100") as cluster:
        cluster.start()
        cluster.start()
        options = ("trainable=waiting:Eats", "search.max_failures=1", "config.seed={grid: [0, 1]}")
        run, path = search(cluster, folder, *options), folder / "far"
        assert run.ended() == 0, run.output()
    bill, trials = settled(path, ("complete", "failed"))
    assert trials["attempts"].tolist() == [1, 2]
    assert "given up after 2 attempts that died: OutOfMemoryError" in trials.loc[1, "error"]
    assert "memory" in trials.loc[1, "lost_attempts"]
    assert [attempt.reason for attempt in bill.trials["1"].attempts] == ["died", "died"]
