"""The node's meter on fake GPUs with a clock that moves when told, and on this machine with real processes."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass, field

import pytest

from sbp_tune.energy import living_lease
from sbp_tune.energy.attribution import attribute
from sbp_tune.energy.counters.machine import MachineCounters
from sbp_tune.energy.invariants import check
from sbp_tune.energy.ledger import read_ledger
from sbp_tune.energy.node_meter import NodeMeter
from sbp_tune.energy.nvml import Nvml
from sbp_tune.energy.records import Gap, Inventory, LeaseClosed, LeaseOpened
from sbp_tune.errors import SbpTuneError

PERIOD_S = 0.1
PIPES = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
HOLD = "print('held', flush=True)\ninput()"
BURN = "import time\nwhile time.process_time() < {seconds}: pass\n"
KWH = 3.6e6


@dataclass
class Process:
    """What the meter sees of a process that is none."""

    started: float = 0.0  # by the fake clock
    cpu_s: float = 0.0
    alive: bool = True


@dataclass
class Table:
    """Processes by pid, in the place of ProcessTree."""

    clock: object
    processes: dict[int, Process] = field(default_factory=dict)

    def tree(self, pid, *, descendants, age_s=0.0):
        process = self.processes.get(pid)
        if process is None or not process.alive or (age_s > 0 and self.clock() - process.started < age_s):
            raise SbpTuneError(f"process {pid} does not exist or cannot be read")

        class Tree:
            cpu_seconds = staticmethod(lambda: process.cpu_s)
            alive = staticmethod(lambda: process.alive)
            memory_gb = staticmethod(lambda: 1.0)

        return Tree()


@pytest.fixture
def machine(tmp_path, nvml, clock, monkeypatch):
    """make(): a meter of four fake T4s, in an interval of an hour, so that only calls take snapshots."""
    table = Table(clock, {pid: Process(started=clock() - 1) for pid in (1, 2, 3)})
    monkeypatch.setattr(living_lease, "ProcessTree", table.tree)
    started = []

    class Machine:
        processes = table.processes
        folder = tmp_path / "energy"

        def make(self, **options):
            folders = {name: tmp_path / name for name in ("powercap", "hwmon", "drm")}
            coefficients = {"cpu_idle_w": 1, "cpu_busy_w": 5, "ram_w_per_gb": 0.375}
            coefficients["gpu_idle_w"] = options.pop("gpu_idle_w", None)
            counters = MachineCounters(nvml=nvml, clock=clock, **coefficients, **folders)
            folder = options.pop("folder", self.folder)
            started.append(NodeMeter("n", folder, counters, period=3600, clock=clock, **options))
            return started[-1]

        def bill(self):
            return checked(self.folder)

    yield Machine()
    for meter in started:
        meter.stop()


@pytest.fixture
def real(tmp_path, library):
    """make(): a meter of this machine without GPUs, ten times a second."""
    library.gpus = []
    started = []

    def make(folder=tmp_path / "energy", **options):
        folders = {name: tmp_path / name for name in ("powercap", "hwmon", "drm")}
        counters = MachineCounters(nvml=Nvml(library), cpu_idle_w=1, cpu_busy_w=5, ram_w_per_gb=0.375, **folders)
        started.append(NodeMeter("n", folder, counters, period=options.get("period", PERIOD_S)))
        return started[-1]

    make.folder = tmp_path / "energy"
    yield make
    for meter in started:
        meter.stop()


@pytest.fixture
def python():
    """A process that runs some code, ended with the test."""
    started = []

    def run(code, **options):
        command = [sys.executable, "-S", "-E", "-c", textwrap.dedent(code)]
        started.append(subprocess.Popen(command, text=True, **PIPES, **options))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.communicate()


def checked(folder):
    """The bill of a ledger: nothing in it is damaged, trials and overhead are the machine."""
    records = list(read_ledger(folder))
    bill = attribute(records)
    check(bill, records)
    return bill


def records_of(folder, kind):
    return [record for record in read_ledger(folder) if isinstance(record, kind)]


def wait_until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_what_a_trial_is_told_is_what_the_ledger_says(machine, clock, uuids):
    meter = machine.make()
    meter.open("a", "0", pid=1, gpus={uuids[0]: 1.0}, cpus=2)
    meter.open("b", "1", pid=2, gpus={uuids[1]: 1.0}, cpus=1)
    for epoch in range(1, 4):
        clock.advance(37.1)
        machine.processes[1].cpu_s += 11
        told = meter.mark("a", epoch, True)
        bill = machine.bill()
        [attempt] = bill.trials["0"].attempts
        assert told.components == attempt.components == bill.trials["0"].components
        assert told.kwh == pytest.approx(attempt.epochs[epoch], rel=1e-14)  # the order of a sum
        assert told.seconds == attempt.seconds and told.cpu_seconds == attempt.cpu_seconds == 11 * epoch
    assert told.components["gpu"].kwh == pytest.approx(70 * 3 * 37.1 / KWH, rel=1e-3)
    assert told.gpu_busy_seconds == pytest.approx(0.8 * 3 * 37.1)
    clock.advance(5)
    assert meter.read("b").components == machine.bill().trials["1"].components
    last = meter.close("a", "finished")
    meter.close("b", "stopped")
    clock.advance(60)
    bill = meter.bill()
    assert bill == machine.bill()
    assert last.components == bill.trials["0"].components and last.seconds == bill.trials["0"].attempts[0].seconds
    assert last.gpu_busy_seconds == pytest.approx(0.8 * (3 * 37.1 + 5))
    assert meter.close("a", "stopped").components == last.components
    assert [trial.attempts[0].reason for trial in bill.trials.values()] == ["finished", "stopped"]
    assert bill.trials["0"].kwh == pytest.approx(told.kwh, rel=0.1)  # nothing after its end
    assert bill.idle.components["gpu"].kwh > 2 * 60 * 100 / KWH


def test_a_call_that_is_repeated_changes_nothing(machine, clock):
    meter = machine.make()
    for _ in range(3):
        meter.open("a", "0", pid=1, cpus=1)
    clock.advance(10)
    told = [meter.mark("a", 1, True) for _ in range(2)]
    assert told[0] == told[1]
    clock.advance(10)
    for _ in range(3):
        meter.close("a", "finished")
    assert len(records_of(machine.folder, LeaseOpened)) == len(records_of(machine.folder, LeaseClosed)) == 1
    assert machine.bill().trials["0"].seconds == 20


def test_an_attempt_is_ended_without_the_name_of_its_lease(machine, clock):
    meter = machine.make()
    meter.open("a", "0", pid=1, cpus=1)
    meter.open("b", "0", attempt=1, pid=2, cpus=1)
    meter.open("c", "1", pid=3, cpus=1)
    clock.advance(10)
    for _ in range(2):
        meter.close_attempt("0", 0, "stopped")
    meter.close_attempt("7", 0, "stopped")
    assert meter.leases == ["b", "c"]
    clock.advance(10)
    meter.close("a", "finished")  # it has ended
    [first, second] = meter.bill().trials["0"].attempts
    assert meter.bill() == machine.bill()
    assert (first.reason, first.seconds, second.reason, second.seconds) == ("stopped", 10, None, 20)


def test_an_unknown_lease_and_one_that_ended_are_lines(machine):
    meter = machine.make()
    with pytest.raises(SbpTuneError, match="lease x has ended"):
        meter.mark("x", 1, True)
    with pytest.raises(SbpTuneError, match="lease x is not in the ledger"):
        meter.read("x")
    with pytest.raises(SbpTuneError, match="process 99 does not exist"):
        meter.open("a", "0", pid=99)
    with pytest.raises(SbpTuneError, match="lease x is not in the ledger"):
        meter.close("x", "stopped")
    assert machine.bill().trials == {}


def test_the_gpu_of_a_dead_trial_goes_to_the_next_one(machine, clock, uuids):
    meter = machine.make()
    meter.open("a", "0", pid=1, gpus={uuids[0]: 1.0})
    clock.advance(10)
    meter.mark("a", 1, True)
    machine.processes[1].alive = False
    clock.advance(10)
    meter.open("b", "0", attempt=1, pid=2, gpus={uuids[0]: 1.0}, continued_epoch=1)
    clock.advance(10)
    meter.close("b", "finished")
    bill = machine.bill()
    first, second = bill.trials["0"].attempts
    assert (first.reason, first.seconds, second.seconds) == ("died", 10, 10)
    assert not first.shared and bill.trials["0"].kwh_wasted == 0
    with pytest.raises(SbpTuneError, match="its process was gone"):
        meter.mark("a", 2, True)


def test_a_shared_gpu_is_flagged(machine, clock, uuids):
    meter = machine.make()
    meter.open("a", "0", pid=1, gpus={uuids[0]: 0.5})
    meter.open("b", "1", pid=2, gpus={uuids[0]: 0.5})
    clock.advance(10)
    bill = meter.bill()
    assert bill.trials["0"].shared and bill.trials["1"].shared
    gpu = [trial.components["gpu"].kwh for trial in bill.trials.values()]
    assert gpu[0] == gpu[1] == pytest.approx(350 / KWH)
    assert machine.bill() == bill


@pytest.mark.parametrize(("gpu_idle_w", "watts"), [(None, 70), (20, 0.25 * 20 + 50), (90, 0.25 * 70)])
def test_what_a_shared_gpu_draws_idle_goes_by_fraction(machine, clock, uuids, gpu_idle_w, watts):
    meter = machine.make(gpu_idle_w=gpu_idle_w)
    meter.open("a", "0", pid=1, gpus={uuids[0]: 0.25})
    meter.open("b", "1", pid=2, gpus={uuids[1]: 1.0})
    clock.advance(10)
    bill = meter.bill()
    assert bill.trials["0"].components["gpu"].kwh * KWH == pytest.approx(10 * watts)
    assert bill.trials["1"].components["gpu"].kwh * KWH == pytest.approx(10 * 60)  # held alone: whole
    assert bill.idle.components["gpu"].kwh * KWH == pytest.approx(10 * (70 - watts + 50 + 10))
    assert machine.bill() == bill


def test_a_restart_goes_on_with_the_living_and_doubles_nothing(machine, clock, uuids):
    meter = machine.make()
    meter.open("a", "0", pid=1, gpus={uuids[0]: 1.0}, cpus=1)
    meter.open("b", "1", pid=2, gpus={uuids[1]: 1.0}, cpus=1)
    clock.advance(100)
    machine.processes[1].cpu_s = 50
    before = {lease: meter.mark(lease, 1, True) for lease in ("a", "b")}
    meter._ledger.close()  # the process is gone
    meter._ledger = None
    clock.advance(40)
    machine.processes[1].cpu_s = 70
    machine.processes[2].alive = False
    again = machine.make()
    assert len(records_of(machine.folder, Gap)) == 1
    with pytest.raises(SbpTuneError, match="lease b has ended"):
        again.mark("b", 2, True)
    assert again.read("b").components == before["b"].components
    clock.advance(10)
    machine.processes[1].cpu_s = 75
    after = again.mark("a", 2, True)
    bill = machine.bill()
    a, b = (bill.trials[trial].attempts[0] for trial in "01")
    assert (a.seconds, b.seconds, b.reason) == (150, 100, "died")
    assert after.components == a.components and b.components == before["b"].components
    assert a.components["gpu"].kwh == pytest.approx(70 * 150 / KWH, rel=1e-3)  # its counter went on
    assert a.cpu_seconds == 55 and a.coverage == pytest.approx(110 / 150)  # nobody saw the others
    assert not a.well_covered


def test_a_pid_that_was_given_to_another_process_is_not_followed(machine, clock):
    meter = machine.make()
    meter.open("a", "0", pid=1)
    clock.advance(10)
    meter.read("a")
    meter._ledger.close()
    meter._ledger = None
    clock.advance(10)
    machine.processes[1] = Process(started=clock())
    clock.advance(10)
    again = machine.make()
    [ended] = records_of(machine.folder, LeaseClosed)
    assert ended.reason == "died" and again.bill().trials["0"].seconds == 10


def test_a_power_that_cannot_be_true_is_no_number(machine, clock, library, uuids):
    """1,100 W of a board limited to 70 W, as two published tables have it."""
    meter = machine.make()
    meter.open("a", "0", pid=1, gpus={uuids[2]: 1.0})
    library.gpus[2].power_w = 1100
    clock.advance(10)
    assert meter.mark("a", 1, True).components["gpu"].kwh is None
    bill = machine.bill()
    assert bill.trials["0"].kwh is None
    assert any(uuids[2] in warning and "limit" in warning for warning in bill.warnings)


def test_readings_that_contradict_each_other_are_an_error_ever_after(machine, clock):
    meter = machine.make()
    meter.open("a", "0", pid=1)
    machine.processes[1].cpu_s = 5
    clock.advance(10)
    meter.read("a")
    machine.processes[1].cpu_s = 4
    clock.advance(10)
    for call in (lambda: meter.mark("a", 1, True), meter.bill, lambda: meter.open("b", "1", pid=2)):
        with pytest.raises(SbpTuneError, match="lease a: CPU seconds went backwards"):
            call()
    with pytest.raises(SbpTuneError, match="went backwards"):
        attribute(read_ledger(machine.folder))


def test_a_gpu_that_is_lost_has_no_number_and_the_others_go_on(machine, clock, library, uuids):
    meter = machine.make()
    meter.open("a", "0", pid=1, gpus={uuids[0]: 1.0})
    meter.open("b", "1", pid=2, gpus={uuids[1]: 1.0})
    library.gpus[0].lost = True
    clock.advance(10)
    assert meter.mark("a", 1, True).components["gpu"].kwh is None
    assert meter.mark("b", 1, True).components["gpu"].kwh == pytest.approx(600 / KWH)
    bill = machine.bill()
    assert bill.trials["0"].kwh is None and any(uuids[0] in warning for warning in bill.warnings)


def test_a_ledger_that_cannot_be_begun_is_a_line(machine, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SbpTuneError, match="no ledger can be written here"):
        machine.make(folder=tmp_path / "file" / "energy")


def test_a_ledger_that_cannot_be_gone_on_with_is_an_error_ever_after(machine, clock, monkeypatch):
    meter = machine.make()
    meter.open("a", "0", pid=1)
    clock.advance(10)
    told = meter.mark("a", 1, True)

    def full(*_):
        raise OSError(28, "No space left on device")

    clock.advance(10)
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(SbpTuneError, match=r"a ledger record was lost.*No space left"):
        meter.mark("a", 2, True)
    monkeypatch.undo()
    for call in (lambda: meter.open("b", "1", pid=os.getpid()), lambda: meter.close("a", "finished"), meter.bill):
        with pytest.raises(SbpTuneError, match="No space left"):
            call()
    assert machine.bill().trials["0"].components == told.components


def test_without_a_folder_nothing_is_written(machine, clock, tmp_path):
    meter = machine.make(folder=None)
    meter.open("a", "0", pid=1)
    clock.advance(10)
    assert meter.read("a").seconds == 10
    assert not list(tmp_path.glob("**/*.jsonl"))


def test_a_killed_process_ends_its_lease_within_an_interval_and_a_stopped_one_does_not(real, python):
    meter = real()
    killed, stopped = python(HOLD), python(HOLD)
    for name, process in (("0", killed), ("1", stopped)):
        assert process.stdout.readline() == "held\n"
        meter.open(name, name, pid=process.pid, cpus=1)
    stopped.send_signal(signal.SIGSTOP)
    time.sleep(3 * PERIOD_S)
    now = time.monotonic()
    killed.kill()  # and not reaped: a zombie
    wait_until(lambda: records_of(real.folder, LeaseClosed))
    [ended] = records_of(real.folder, LeaseClosed)
    assert (ended.lease, ended.reason) == ("0", "died")
    assert now - 3 * PERIOD_S <= ended.time <= now + 3 * PERIOD_S  # a busy machine may skip a beat
    time.sleep(3 * PERIOD_S)
    assert meter.read("1").seconds > 0
    bill = checked(real.folder)
    assert {name: trial.attempts[0].reason for name, trial in bill.trials.items()} == {"0": "died", "1": None}


def test_burners_side_by_side_are_billed_in_proportion_to_their_cpu_time(real, python):
    """More of them than cores; the kernel's own account of each is the truth."""
    meter = real()
    start = f"input()\n{BURN}print('burnt', flush=True)\ninput()"
    burners = [python(start.format(seconds=seconds)) for seconds in (0.8, 1.2, 1.6)]
    for name, burner in enumerate(burners):
        meter.open(str(name), str(name), pid=burner.pid)  # no core reserved: all its energy is by CPU time
    for burner in burners:
        burner.stdin.write("\n")
        burner.stdin.flush()
    assert all(burner.stdout.readline() == "burnt\n" for burner in burners)
    for name in range(3):
        meter.close(str(name), "finished")
    used = []
    for burner in burners:
        burner.stdin.write("\n")
        burner.stdin.flush()
        _, _, usage = os.wait4(burner.pid, 0)
        burner.returncode = 0
        used.append(usage.ru_utime + usage.ru_stime)
    bill = checked(real.folder)
    kwh = [bill.trials[str(name)].components["cpu"].kwh for name in range(3)]
    assert [k / sum(kwh) for k in kwh] == pytest.approx([u / sum(used) for u in used], rel=0.03)
    assert [bill.trials[str(name)].cpu_seconds for name in range(3)] == pytest.approx(used, rel=0.05)


def test_short_children_are_billed(real):
    meter = real()
    meter.open("0", "0")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    for _ in range(40):
        subprocess.run([sys.executable, "-S", "-E", "-c", BURN.format(seconds=0.05)], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    told = meter.mark("0", 1, True)
    assert used > 2 and told.cpu_seconds >= 0.95 * used
    assert told.kwh == pytest.approx(checked(real.folder).trials["0"].epochs[1], rel=1e-14)


METER = """
import sys
from pathlib import Path
from sbp_tune.energy.counters.machine import MachineCounters
from sbp_tune.energy.node_meter import NodeMeter
from sbp_tune.energy.nvml import Nvml

class Nothing:
    NVMLError = NVMLError_NotSupported = NVMLError_FunctionNotFound = OSError
    nvmlInit = staticmethod(lambda: None)
    nvmlDeviceGetCount = staticmethod(lambda: 0)

folder, *pids = sys.argv[1:]
counters = MachineCounters(nvml=Nvml(Nothing()), powercap=Path(folder, "none"), hwmon=Path(folder, "none"))
meter = NodeMeter("n", Path(folder), counters, period=0.1)
for pid in pids:
    meter.open(pid, pid, pid=int(pid), cpus=1)
print("metering", flush=True)
input()
"""


def test_a_killed_meter_is_followed_by_another_on_the_same_ledger(real, python):
    """SIGKILL of the process that meters, and of one of the two trials while nobody looks."""
    trials = [python(f"{BURN.format(seconds=0.2)}print('held', flush=True)\ninput()") for _ in range(2)]
    assert all(trial.stdout.readline() == "held\n" for trial in trials)
    command = [sys.executable, "-c", METER, str(real.folder), *(str(trial.pid) for trial in trials)]
    with subprocess.Popen(command, text=True, **PIPES) as first:
        assert first.stdout.readline() == "metering\n"
        time.sleep(5 * PERIOD_S)
        with pytest.raises(SbpTuneError, match="another meter writes the ledger"):
            real()
        first.kill()
        first.wait()
    trials[1].kill()
    trials[1].wait()
    before = checked(real.folder)
    time.sleep(3 * PERIOD_S)
    meter = real()
    living, dead = (str(trial.pid) for trial in trials)
    told = meter.mark(living, 1, True)
    bill = checked(real.folder)
    assert len(bill.gaps) == 1 and bill.gaps[0].end - bill.gaps[0].start >= 2 * PERIOD_S
    assert bill.trials[dead].attempts[0].reason == "died" and bill.trials[dead].kwh == before.trials[dead].kwh
    assert told.kwh == pytest.approx(bill.trials[living].epochs[1], rel=1e-14)
    assert told.kwh >= before.trials[living].kwh
    [inventory, *_] = records_of(real.folder, Inventory)
    most_w = inventory.cpus * (inventory.cpu_idle_w + inventory.cpu_busy_w) + inventory.ram_gb * inventory.ram_w_per_gb
    assert bill.machine.kwh <= 1.1 * most_w * bill.seconds / KWH  # by ticks of a clock
