"""Whole searches whose results lie on object storage: killed, cut off, and continued on another machine.

A machine is a home of its own; the storage is a real S3 server, behind a wire that can be cut.
"""

import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import ray
from object_storage import KEYS, Wire

from sbp_tune.config import TrainConfig
from sbp_tune.energy.attribution import attribute
from sbp_tune.energy.invariants import check
from sbp_tune.energy.ledger import read_ledger
from sbp_tune.energy.node_actor import COUNTERS
from sbp_tune.remote import Remote, state_folder
from sbp_tune.study.epochs import read_log
from sbp_tune.study.ledger import ledger_folder
from sbp_tune.study.results import load_study
from sbp_tune.study.storage import attempts, open_study
from trainables.response import response

pytestmark = pytest.mark.slow

PLAYED = """
name: far
config:
  data: {name: cifar10, root: nowhere}
  optimizer: {lr: {log_uniform: [0.02, 0.4]}}
  epochs: {choice: [4, 8]}
search: {sampler: random, trials: 10}
simulate: {}
"""

TRAINED = """
name: far
trainable: fake_gpus:Slow
config:
  data: {name: digits, subset: 256, batch_size: 32}
  model: {args: {width: 4}}
  device: cpu
  epochs: 6
  seed: {grid: [0, 1]}
resources: {cpu: 1, gpu: 1}
energy: {country: IRL}
"""

# A driver that waits for nobody as long as a user's does.
DRIVER = """
import sys
from sbp_tune.energy import spool
from sbp_tune.study import drivers, mirror
drivers.STALE_S, drivers.BEAT_S, mirror.PERIOD_S, mirror.FINAL_S = 10.0, 1.0, 0.5, 0.0
from sbp_tune.cli import app
app(sys.argv[1:])
"""


class Machine:
    """A home and a working directory of its own, and sbp-tune there on the session's Ray."""

    def __init__(self, folder: Path, ray_address: str, state: Path | None = None):
        self._token = os.environ.get("RAY_AUTH_TOKEN_PATH") or str(Path.home() / ".ray" / "auth_token")
        self.home, self.state, self._on = folder, state or folder / "state", ["--address", ray_address]
        folder.mkdir()

    def start(self, command: str, *arguments):
        where = self._on if command in ("search", "resume") else []
        environment = os.environ | KEYS | {"HOME": str(self.home), "SBP_TUNE_STATE": str(self.state)}
        environment |= {"RAY_AUTH_TOKEN_PATH": self._token} if Path(self._token).is_file() else {}
        paths = [str(Path.cwd()), os.environ.get("PYTHONPATH", "")]
        return subprocess.Popen(
            [sys.executable, "-c", DRIVER, command, *map(str, arguments), *where],
            cwd=self.home,
            env=environment | {"PYTHONPATH": os.pathsep.join(paths), COUNTERS: "fake_gpus:counters"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, command: str, *arguments):
        """The exit code and all that was said."""
        process = self.start(command, *arguments)
        said, _ = process.communicate()
        return process.returncode, said

    def study(self, uri: str) -> Path:
        """Where this machine has a study."""
        place = state_folder(uri, "studies").relative_to(os.environ["SBP_TUNE_STATE"])
        return self.state / place


@pytest.fixture
def machines(tmp_path, ray_address, bucket):
    """Two of them, the first the one on which Ray runs."""
    state = Path(ray.get(ray.remote(lambda: os.environ["SBP_TUNE_STATE"]).remote()))
    return Machine(tmp_path / "first", ray_address, state), Machine(tmp_path / "second", ray_address)


@contextmanager
def searching(machine, tmp_path, text, results, until):
    """A search, from when it has said `until` so many times; what it says after is to be read from it."""
    (tmp_path / "far.yaml").write_text(text)
    with machine.start("search", tmp_path / "far.yaml", "--results", results) as driver:
        try:
            word, times = until
            said = []
            for line in driver.stdout:
                said.append(line)
                times -= word in line
                if times == 0:
                    break
            assert times == 0, "".join(said)
            yield driver
        finally:
            driver.kill()


def states(path):
    return load_study(path).trials["state"].value_counts().to_dict()


def check_played(path, planned):
    """All trials are complete, no epoch is there twice, and the last is what the curve says.

    Played epochs take milliseconds: a driver that is killed takes more of them with it than there are checkpoints.
    """
    study = load_study(path)
    assert study.trials["state"].tolist() == ["complete"] * planned
    for trial, kwh in zip(study.trials["trial"], study.trials["kwh"], strict=True):
        curve = response(TrainConfig.model_validate(study.config_of(trial)))
        epochs = study.epochs.loc[study.epochs["trial"] == trial, "epoch"].tolist()
        assert epochs == sorted(set(epochs)) and epochs[-1] == len(curve) and kwh == curve[-1]["kwh"]


def wait_until(true, what, seconds=300):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.2)


def test_a_killed_search_goes_on_on_another_machine(machines, bucket, tmp_path):
    first, second = machines
    long = PLAYED.replace("trials: 10", "trials: 60")  # it has to outlast two commands
    uri = Remote(bucket).child("far").uri
    with searching(first, tmp_path, long, bucket, (" complete ", 4)) as driver:
        code, said = second.run("resume", uri)
        assert code == 1 and "another process runs this study at present" in said, said
        code, said = second.run("search", tmp_path / "far.yaml", "--results", bucket)
        assert code == 2 and "a study of this name exists; continue it with `sbp-tune resume" in said
        driver.kill()
        driver.communicate()
    time.sleep(11)  # then it is taken for dead
    code, said = second.run("resume", uri)
    assert code == 0 and f"Study: {uri}" in said, said
    check_played(second.study(uri), 60)
    code, said = first.run("report", uri)
    assert code == 0, said
    check_played(first.study(uri), 60)
    for name in ("report.html", "trials.csv", "front.csv", "best.yaml", "study.db"):
        assert name in Remote(uri).files()
    code, said = first.run("resume", uri)
    assert code == 2 and "nothing to resume" in said
    code, said = first.run("export", "far", "--results", bucket, "-o", "best.yaml")
    assert code == 0 and (first.home / "best.yaml").is_file(), said


def test_real_training_goes_on_from_its_checkpoints_on_another_machine(machines, bucket, tmp_path):
    first, second = machines
    uri = Remote(bucket).child("far").uri
    with searching(first, tmp_path, TRAINED, bucket, (" started", 2)) as driver:
        log = first.study(uri)
        wait_until(lambda: sum(row["epoch"] >= 3 for row in read_log(log)) >= 2, "no third epoch")
        time.sleep(1.5)  # copied
        driver.kill()
        driver.communicate()
    time.sleep(11)
    code, said = second.run("resume", uri)
    assert code == 0, said
    path = second.study(uri)
    assert states(path) == {"complete": 2}
    records = list(read_ledger(ledger_folder(path)))
    bill = attribute(records)
    check(bill, records)
    for trial in open_study(path).get_trials():
        early, late = bill.trials[str(trial.number)].attempts
        assert len(attempts(trial)) == 2 and late.lease.continued_epoch >= 2
        assert sorted(late.epochs) == list(range(late.lease.continued_epoch + 1, 7)) and early.kwh > 0
    for _, rows in load_study(path).epochs.groupby("trial"):  # of a lost machine all but the last seconds is there
        epochs = rows["epoch"].astype(int).tolist()
        assert epochs == sorted(set(epochs)) and epochs[0] == 1 and epochs[-1] == 6
    assert not any((first.study(uri) / "ray").glob("*/checkpoint_*"))
    assert any(Remote(uri).child("ray", attempts(trial)[-1]).folders())


@pytest.fixture
def wired(bucket, object_storage):
    """A wire to the storage, and the results' URI by it."""
    wire = Wire(object_storage.port)
    return wire, object_storage.uri(bucket.split("/")[2], wire.port)


def test_a_network_that_comes_back_in_time_is_only_a_warning(machines, wired, tmp_path):
    (wire, results), machine = wired, machines[0]
    uri = Remote(results).child("far").uri
    with searching(machine, tmp_path, TRAINED, results, (" started", 2)) as driver:
        path = machine.study(uri)
        wait_until(lambda: len(read_log(path)) >= 2, "no epoch")
        wire.cut()
        said, waited_for = (
            "",
            ["could not write its checkpoint to", "; the search goes on, and is copied when that can"],
        )
        for line in driver.stdout:
            said += line
            if waited_for and all(words in said for words in waited_for):
                wire.mend()
                waited_for = []
        assert not waited_for, said
        assert driver.wait() == 0, said
    assert ": all is copied again" in said, said
    code, said = machines[1].run("report", uri)
    assert code == 0, said
    other = machines[1].study(uri)
    assert states(other) == {"complete": 2} and load_study(other).trials.equals(load_study(path).trials)
    assert [len(attempts(trial)) for trial in open_study(other).get_trials()] == [1, 1]
    wire.cut()


def test_a_network_that_stays_away_loses_nothing(machines, wired, tmp_path):
    (wire, results), machine = wired, machines[0]
    uri = Remote(results).child("far").uri
    with searching(machine, tmp_path, TRAINED, results, (" started", 2)) as driver:
        path = machine.study(uri)
        wait_until(lambda: len(read_log(path)) >= 2, "no epoch")
        wire.cut()
        said, _ = driver.communicate()
        assert driver.returncode == 1 and "Traceback" not in said, said
    assert "not all of the study is there, but here nothing is lost" in said and f"`sbp-tune report '{uri}'`" in said
    code, said = machine.run("report", uri)
    assert code == 2 and "NETWORK_CONNECTION" in said and f"what this machine has of it is in {path}" in said
    wire.mend()
    code, said = machine.run("report", uri)
    assert code == 0, said
    code, said = machines[1].run("energy", uri)
    assert code == 0, said
    here, there = load_study(path), load_study(machines[1].study(uri))
    assert states(path) == {"complete": 2} and here.trials.equals(there.trials)
    for folder in (path, machines[1].study(uri)):
        records = list(read_ledger(ledger_folder(folder)))
        check(attribute(records), records)
    wire.cut()
