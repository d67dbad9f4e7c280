from __future__ import annotations

import itertools
import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sbp_tune.energy.process import ProcessTree
from sbp_tune.energy.process_readers import ProcessTimes, ProcFs, Psutil
from sbp_tune.errors import SbpTuneError

PIPES = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
HOLD = "print('held', flush=True)\ninput()"
BURN = "import time\nwhile time.process_time() < {seconds}: pass\n"
WAITING_BURN = BURN + "print('burnt', flush=True)\ninput()"


def python(code: str, **options) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-S", "-E", "-c", textwrap.dedent(code)], text=True, **options)


def children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def test_children_too_short_to_be_seen_count_in_full():
    tree = ProcessTree(os.getpid())
    before, truth = tree.cpu_seconds(), children_seconds()
    for _ in range(40):
        assert python(BURN.format(seconds=0.05)).wait() == 0
    truth = children_seconds() - truth
    assert truth > 2
    assert tree.cpu_seconds() - before >= 0.95 * truth


def test_burners_at_once_are_billed_in_proportion_to_their_cpu_time():
    """More of them than cores, so wall time says nothing; the kernel's own account of each is the truth."""
    burners = [python(WAITING_BURN.format(seconds=s), **PIPES) for s in (1.0, 1.5, 2.0)]
    try:
        trees = [ProcessTree(burner.pid) for burner in burners]
        assert all(burner.stdout.readline() == "burnt\n" for burner in burners)
        billed = [tree.cpu_seconds() for tree in trees]
        for burner in burners:
            burner.stdin.write("\n")
            burner.stdin.flush()
        used = [usage.ru_utime + usage.ru_stime for _, _, usage in (os.wait4(b.pid, 0) for b in burners)]
    finally:
        for burner in burners:
            burner.kill()
            burner.communicate()
    shares = [seconds / sum(billed) for seconds in billed]
    assert shares == pytest.approx([seconds / sum(used) for seconds in used], rel=0.03)
    assert sum(billed) == pytest.approx(sum(used), rel=0.03)


def test_a_killed_process_keeps_what_it_used_and_is_noticed():
    with python(WAITING_BURN.format(seconds=0.3), **PIPES) as burner:
        tree = ProcessTree(burner.pid)
        assert burner.stdout.readline() == "burnt\n"
        used = tree.cpu_seconds()
        assert used > 0.25 and tree.alive()
        burner.kill()
        deadline = time.monotonic() + 30
        while tree.alive() and time.monotonic() < deadline:  # before it is reaped: a zombie is dead
            pass
        assert not tree.alive()
        assert Path(f"/proc/{burner.pid}").exists() or not ProcFs.available()
        assert tree.cpu_seconds() >= used
    assert not tree.alive()
    assert tree.cpu_seconds() >= used


def test_a_stopped_process_is_alive_and_costs_nothing():
    with python("print('ready', flush=True)\nwhile True: pass", **PIPES) as burner:
        try:
            assert burner.stdout.readline() == "ready\n"
            tree = ProcessTree(burner.pid)
            burner.send_signal(signal.SIGSTOP)
            os.waitpid(burner.pid, os.WUNTRACED)
            used = tree.cpu_seconds()
            time.sleep(0.3)
            assert tree.alive()
            assert tree.cpu_seconds() == pytest.approx(used, abs=0.011)  # a tick of the kernel's clock
            assert tree.memory_gb() > 0
            burner.send_signal(signal.SIGCONT)
            while tree.cpu_seconds() < used + 0.1:
                pass
        finally:
            burner.kill()


def test_a_program_that_replaces_the_process_is_the_same_process():
    code = "import os, sys\n" + BURN.format(seconds=0.2) + f"os.execv(sys.executable, ['python', '-c', {HOLD!r}])"
    with python(code, **PIPES) as burner:
        tree = ProcessTree(burner.pid)
        assert burner.stdout.readline() == "held\n"
        assert tree.alive() and tree.cpu_seconds() >= 0.2
        burner.communicate("\n")


def test_a_pid_in_other_hands_is_not_alive():
    system = SimulatedSystem()
    tree = ProcessTree(2, system)
    assert tree.alive()
    system.table[2].started = 999.0
    assert not tree.alive()
    del system.table[2]
    assert not tree.alive()


def test_a_living_grandchild_counts_and_reaping_it_changes_nothing():
    code = f"""
        import subprocess, sys
        child = subprocess.Popen([sys.executable, "-S", "-E", "-c", {BURN.format(seconds=0.5) + "input()"!r}],
                                 stdin=subprocess.PIPE)
        input()
        child.communicate(b"\\n")
        print("reaped", flush=True)
        input()
    """
    with python(code, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        tree = ProcessTree(parent.pid)
        while (alive := tree.cpu_seconds()) < 0.4:  # sees the grandchild while it runs
            pass
        parent.stdin.write("\n")
        parent.stdin.flush()
        assert parent.stdout.readline() == "reaped\n"
        assert alive <= tree.cpu_seconds() < alive + 0.3
        parent.stdin.write("\n")
    assert tree.cpu_seconds() >= alive  # the root itself is gone


def test_an_orphan_is_still_followed():
    wait = "import os, time\nparent = os.getppid()\nprint(os.getpid(), flush=True)\n"
    wait += "while os.getppid() == parent: time.sleep(0.01)\n"
    child_code = wait + BURN.format(seconds=0.4) + "while True: time.sleep(1)"
    code = f"""
        import subprocess, sys
        child = subprocess.Popen([sys.executable, "-S", "-E", "-c", {child_code!r}])
        input()
    """
    with python(code, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        tree = ProcessTree(parent.pid)
        orphan = int(parent.stdout.readline())
        try:
            tree.cpu_seconds()  # sees the child while it still has its parent
            parent.stdin.write("\n")
            parent.stdin.flush()
            parent.wait()
            while tree.cpu_seconds() < 0.3:
                pass
        finally:
            os.kill(orphan, signal.SIGKILL)


def test_memory_of_one_process_and_of_forked_ones():
    code = """
        import os
        block = bytearray(os.urandom(1) * 100_000_000)
        if os.fork() == 0:
            os.read(0, 1)
            os._exit(0)
        print("ready", flush=True)
        os.read(0, 1)
    """
    with python(code, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        parent.stdout.readline()
        tree = ProcessTree(parent.pid)
        alone = tree.memory_gb()
        tree.cpu_seconds()  # finds the child
        together = tree.memory_gb()
        parent.stdin.write("xx")
    assert 0.1 < alone < 0.15
    if ProcFs.available():
        assert 0.1 < together < 0.15  # the block is shared, and counts once


def test_a_missing_process_is_an_error():
    child = python("pass")
    child.wait()
    with pytest.raises(SbpTuneError, match=str(child.pid)):
        ProcessTree(child.pid)


@pytest.mark.skipif(not ProcFs.available(), reason="needs Linux's /proc")
def test_both_readers_agree():
    own, child = os.getpid(), python("input()", stdin=subprocess.PIPE)
    fast, portable = ProcFs(), Psutil()
    try:
        assert child.pid in fast.children(own)
        assert sorted(fast.children(own)) == sorted(portable.children(own))
        a, b = fast.times(own), portable.times(own)
        assert a.parent == b.parent
        assert b.own == pytest.approx(a.own, abs=0.2)
        assert b.reaped == pytest.approx(a.reaped, abs=0.02)
        assert portable.resident(own) == pytest.approx(fast.resident(own), rel=0.05)
    finally:
        child.communicate("\n")
    assert fast.times(child.pid) is None
    assert portable.times(child.pid) is None


@dataclass
class Simulated:
    pid: int
    parent: int
    own: float = 0.0
    reaped: float = 0.0
    started: float = 0.0
    children: set[int] = field(default_factory=set)


class SimulatedSystem:
    """A process table whose true CPU time is known. Pid 1 is init, 2 the root of the tree."""

    def __init__(self) -> None:
        self.table = {1: Simulated(1, 0), 2: Simulated(2, 1)}
        self.burned = 0.0
        self.next = 3

    def spawn(self, parent: int) -> None:
        self.table[self.next] = Simulated(self.next, parent)
        self.table[parent].children.add(self.next)
        self.next += 1

    def burn(self, pid: int, seconds: float) -> None:
        self.table[pid].own += seconds
        self.burned += seconds

    def exit(self, pid: int, reaped: bool = True) -> None:
        """Without being reaped, as under a parent that ignores SIGCHLD, its time goes nowhere."""
        gone = self.table.pop(pid)
        parent = self.table[gone.parent]
        parent.reaped += gone.own + gone.reaped if reaped else 0.0
        parent.children.discard(pid)
        for child in gone.children:
            self.table[child].parent = 1
            self.table[1].children.add(child)

    def times(self, pid: int) -> ProcessTimes | None:
        process = self.table.get(pid)
        return process and ProcessTimes(process.started, process.parent, process.own, process.reaped)

    def children(self, pid: int) -> list[int]:
        return sorted(self.table[pid].children) if pid in self.table else []

    def resident(self, pid: int) -> int:
        return 0

    proportional = resident


EVENTS = st.lists(st.tuples(st.sampled_from("sssbbbxr"), st.integers(0, 9), st.integers(1, 100)), max_size=60)


def play(events, tidy: bool) -> tuple[list[float], float]:
    """Totals read at each `r` and at the end, and the true one; if tidy, parents outlive and reap their children."""
    system = SimulatedSystem()
    tree = ProcessTree(2, system)
    totals = []
    for kind, which, amount in events:
        pids = [pid for pid in system.table if pid != 1]
        pid = pids[which % len(pids)]
        if kind == "s":
            system.spawn(pid)
        elif kind == "b":
            system.burn(pid, amount / 10)
        elif kind == "x" and pid != 2 and not (tidy and system.table[pid].children):
            system.exit(pid, reaped=tidy or amount % 2 == 0)
        elif kind == "r":
            totals.append(tree.cpu_seconds())
    totals.append(tree.cpu_seconds())
    return totals, system.burned


@given(EVENTS)
def test_reaped_trees_count_exactly_whenever_they_are_read(events):
    totals, truth = play(events, tidy=True)
    assert totals[-1] == pytest.approx(truth)


@given(EVENTS)
def test_totals_never_fall_and_never_exceed_the_truth(events):
    totals, truth = play(events, tidy=False)
    assert all(later >= earlier - 1e-9 for earlier, later in itertools.pairwise(totals))
    assert totals[-1] <= truth + 1e-6


@pytest.mark.parametrize(("parent", "own", "total"), [(1, 77.0, 5.0), (2, 1.0, 6.0)])
def test_a_pid_that_is_used_again_is_another_process(parent, own, total):
    system = SimulatedSystem()
    system.spawn(2)
    tree = ProcessTree(2, system)
    system.burn(3, 5.0)
    assert tree.cpu_seconds() == 5
    system.exit(3, reaped=False)
    system.table[3] = Simulated(3, parent, own=own, started=999.0)
    system.table[parent].children.add(3)
    assert tree.cpu_seconds() == total
