"""kill -9 of the driver, of a worker and of Ray itself at random moments; after `resume` nothing is lost or twice.

Each run is a study of its own on a Ray of its own, in processes that carry a mark in their environment, so that all
of them can be found and ended. SBP_TUNE_KILL_SEEDS says how many runs there are: 3, one for each victim, unless set.
"""

import itertools
import math
import os
import random
import subprocess
import sys
import time
import uuid
from collections import Counter
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest

from analysis import trial_front
from sbp_tune.config import TrainConfig
from sbp_tune.energy import node_actor
from sbp_tune.energy.attribution import attribute
from sbp_tune.energy.invariants import check
from sbp_tune.energy.ledger import read_ledger
from sbp_tune.errors import InputError
from sbp_tune.fingerprint import fingerprint
from sbp_tune.study.epochs import read_log
from sbp_tune.study.ledger import ledger_folder
from sbp_tune.study.lock import is_in_use
from sbp_tune.study.results import load_study
from sbp_tune.study.sections import SearchConfig
from sbp_tune.study.storage import open_study
from trainables.response import response

SEEDS = int(os.environ.get("SBP_TUNE_KILL_SEEDS", "3"))
VICTIMS = ("driver", "worker", "ray")
MARK = "SBP_TUNE_KILL_TEST"
RETRIES = "max_failures" in SearchConfig.model_fields  # of a trial whose worker died; without it, such a trial fails
PATIENCE = 300  # seconds; only a run that hangs needs them

REPLAYED = """
name: replayed
config:
  data: {name: cifar10, root: nowhere}
  model: {name: resnet18, stem: cifar}
  optimizer: {lr: {log_uniform: [0.02, 0.4]}}
  epochs: {choice: [3, 9]}
  sparsity: {estimator: {choice: [mask, batch_slice, prefix]}, p0: {uniform: [0.1, 1.0]}}
baselines:
  - {sparsity.estimator: dense, epochs: 9}
  - {sparsity.estimator: dense, epochs: 3}
search: {sampler: random, trials: 14}
energy: {country: IRL}
simulate: {}
"""

TRAINED = """
name: trained
trainable: fake_gpus:Slow
config:
  data: {name: digits, subset: 256, batch_size: 32}
  model: {args: {width: 4}}
  device: cpu
  epochs: 3
  seed: {grid: [0, 1, 2, 3]}
resources: {cpu: 1, gpu: 1}
energy: {country: IRL}
"""

DRIVER = """
import sys
from sbp_tune.study import ray_session
import ray
for tries in range(5):  # Ray gives itself 30 s to start, whatever else the machine does
    try:
        options = dict(num_cpus=2, num_gpus=4, include_dashboard=False, log_to_driver=False)
        ray.init("local", object_store_memory=2**27, **options)
        break
    except Exception as error:
        print(error)
        ray.shutdown()
from sbp_tune.cli import app
app([*sys.argv[1:], "--address", ray.get_runtime_context().gcs_address])  # so it asks Ray for GPUs, not this machine
"""


class Run:
    """A command line of sbp-tune on a Ray of its own."""

    def __init__(self, *arguments):
        self.folder = TemporaryDirectory(prefix="kill-", ignore_cleanup_errors=True)  # sockets need a short path
        self.mark = uuid.uuid4().hex
        modules = str(Path(__file__).parent / "modules")
        environment = os.environ | {
            MARK: self.mark,
            "RAY_TMPDIR": self.folder.name,
            "PYTHONPATH": os.pathsep.join([str(Path.cwd()), modules]),
            node_actor.COUNTERS: "fake_gpus:counters",
            "RAY_worker_niceness": "0",  # theirs is 15: beside other work such a worker hardly starts
        }
        self.log = (Path(self.folder.name) / "output").open("w+")
        self.driver = subprocess.Popen(
            [sys.executable, "-c", DRIVER, *map(str, arguments)],
            env=environment,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        """Ends all that is left, the workers that Ray's death left too."""
        while left := self.processes():
            for process in left:
                process.kill()
            psutil.wait_procs(left, timeout=5)
        self.driver.wait()
        self.log.close()
        self.folder.cleanup()

    def processes(self):
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found

    def kill(self, victim, chance):
        """kill -9 of one process of a kind; its name, None where there is none at this moment."""
        names = {"driver": None, "worker": "ray::", "ray": chance.choice(["/raylet", "/gcs_server"])}
        if victim == "driver":
            self.driver.kill()
            return "driver"
        titles = {}
        with suppress(psutil.NoSuchProcess):
            for process in psutil.Process(self.driver.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    titles[process] = (process.cmdline() or [""])[0]
        found = [process for process, title in titles.items() if names[victim] in title and "Agent" not in title]
        if not found:
            return None
        process = chance.choice(found)
        with suppress(psutil.NoSuchProcess):
            process.kill()
        return titles[process].rpartition("/")[2]

    def ended(self):
        """The exit code, once it has ended."""
        try:
            return self.driver.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            pytest.fail(f"still running after {PATIENCE} s:\n{self.output()}")

    def output(self):
        return Path(self.log.name).read_text()


def killed(folder, text, victim, chance, last_row):
    """Runs a study that loses a process at a random moment, and resumes it until it ends; its path and what was killed.

    The moment: after a number of results, and then up to a twentieth of a second.
    """
    file, path, moment = folder / "study.yaml", folder / "study", chance.randrange(last_row)
    file.write_text(text)
    name = results = None
    with Run("search", file, "--results", folder, "--name", "study") as run:
        log = path / "epochs.jsonl"
        while run.driver.poll() is None and name is None:
            if path.exists() and (log.read_bytes().count(b"\n") if log.exists() else 0) >= moment:
                time.sleep(chance.uniform(0, 0.05))
                name = run.kill(victim, chance)
                results = log.read_bytes().count(b"\n") if log.exists() else 0
            time.sleep(0.002)
        code = run.ended()
        print(f"{victim}: {name} killed after {results} results, exit code {code}")
        assert code == 0 or (name and victim != "worker"), run.output()
        assert not (code == 0 and victim == "driver" and name), "a killed driver cannot have ended well"
    assert not run.processes() and not is_in_use(path)
    if code != 0:
        with Run("resume", path) as run:
            code = run.ended()
            # All may have ended just before the kill.
            assert code == 0 or (code == 2 and "nothing to resume" in run.output()), run.output()
    return path, name


def front_of(points):
    """Numbers of the trials that no other dominates, of {number: (accuracy, kwh)}."""
    return {
        number
        for number, (accuracy, kwh) in points.items()
        if not any(a >= accuracy and k <= kwh and (a, k) != (accuracy, kwh) for a, k in points.values())
    }


def check_replayed(path, planned, may_fail):
    """What must hold of a simulated study however often it was killed; the states of its trials."""
    study = load_study(path)
    trials = study.trials.set_index("trial")
    states = Counter(trials["state"])
    assert len(trials) == planned and states["complete"] + states["stopped"] + states["failed"] == planned, states
    assert states["failed"] <= may_fail, trials["error"].dropna().tolist()
    assert [trial.state.name for trial in open_study(path).get_trials()].count("COMPLETE") == states["complete"]

    ran_to_end = Counter(row["trial_id"] for row in read_log(path) if row["fully_trained"])
    attempts = {attempt: t.number for t in open_study(path).get_trials() for attempt in t.user_attrs["attempts"]}
    completions = Counter()
    for trial_id, times in ran_to_end.items():
        completions[attempts[trial_id]] += times
    assert completions == Counter(trials.index[trials["state"] == "complete"])  # each once, and nobody else
    prints = [fingerprint(study.config_of(number)) for number in trials.index]
    assert len(set(prints)) == planned

    points, kwh = {}, []
    for number, row in trials.iterrows():
        curve = response(TrainConfig.model_validate(study.config_of(number)))
        epochs = study.epochs[study.epochs["trial"] == number]
        assert epochs["epoch"].tolist() == list(range(1, len(epochs) + 1))  # none missing, none twice
        assert epochs["kwh"].tolist() == [played["kwh"] for played in curve[: len(epochs)]]
        kwh.append(curve[len(epochs) - 1]["kwh"] if len(epochs) else 0.0)
        if row["state"] == "complete":
            assert len(epochs) == len(curve)
            points[number] = (curve[-1]["val_accuracy"], curve[-1]["kwh"])
    assert math.fsum(trials["kwh"].fillna(0)) == math.fsum(kwh)
    assert set(trial_front(study)["trial"]) == front_of(points)
    assert {trial.number for trial in open_study(path).best_trials} == front_of(points)
    return states


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_killed_study_resumes_as_if_nothing_had_been(seed, tmp_path):
    chance, victim = random.Random(seed), VICTIMS[seed % len(VICTIMS)]
    halving = (None, "stopping", "promotion")[seed // len(VICTIMS) % 3]  # by MO-ASHA, whose rungs must come back too
    stopping = halving is not None
    settings = f"trials: 14, scheduler: moasha, halving: {halving}"
    text = REPLAYED.replace("trials: 14", settings) if stopping else REPLAYED
    path, name = killed(tmp_path, text, victim, chance, last_row=50 if stopping else 80)
    may_fail = 1 if victim == "worker" and name and not RETRIES else 0
    states = check_replayed(path, 16, may_fail)
    assert stopping or states["stopped"] == 0
    with pytest.raises(InputError, match="nothing to resume"):
        resume_here(path)


def resume_here(path):
    from sbp_tune.study.launch import resume

    resume(path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(max(1, SEEDS // 5)))
def test_energy_of_killed_trials_is_neither_lost_nor_doubled(seed, tmp_path):
    """Real trials, and the ledger of a machine with four GPUs that only its meter has."""
    chance = random.Random(1000 + seed)
    victim = VICTIMS[seed % len(VICTIMS)]
    path, name = killed(tmp_path, TRAINED, victim, chance, last_row=10)
    records = list(read_ledger(ledger_folder(path)))
    bill = attribute(records)
    check(bill, records)  # trials and overhead are the machine, and eight more
    study = load_study(path)
    trials = study.trials.set_index("trial")
    assert len(trials) == 4 and sorted(study.config_of(number)["seed"] for number in trials.index) == [0, 1, 2, 3]
    may_fail = 1 if victim == "worker" and name and not RETRIES else 0
    assert (trials["state"] == "complete").sum() >= 4 - may_fail
    assert set(bill.trials) == {str(number) for number in trials.index}
    for number, trial in bill.trials.items():
        row = trials.loc[int(number)]
        assert row["kwh"] == trial.kwh == pytest.approx(math.fsum(attempt.kwh for attempt in trial.attempts))
        windows = sorted((attempt.opened, attempt.ended) for attempt in trial.attempts)
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(windows))  # no second is billed twice
        if row["state"] == "complete":
            told = study.epochs[study.epochs["trial"] == int(number)].iloc[-1]["kwh"]
            assert told == pytest.approx(row["kwh"] - row["kwh_wasted"], rel=0.1)  # the lease ends a moment later
