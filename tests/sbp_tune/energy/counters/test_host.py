from __future__ import annotations

import os
import time

import pytest

from sbp_tune.energy.counters.host import Host

STAT = """cpu  1000 200 300 90000 5000 40 50 7000 600 70
cpu0 500 100 150 45000 2500 20 25 3500 300 35
cpu1 500 100 150 45000 2500 20 25 3500 300 35
intr 123456 1 2 3
ctxt 99
"""
MEMINFO = """MemTotal:       16000000 kB
MemFree:         1000000 kB
MemAvailable:    6000000 kB
HugePages_Total:       0
"""


@pytest.fixture
def proc(tmp_path):
    (tmp_path / "stat").write_text(STAT)
    (tmp_path / "meminfo").write_text(MEMINFO)
    return tmp_path


def test_busy_is_work_of_this_machine(proc):
    host = Host(proc)
    ticks = 1000 + 200 + 300 + 40 + 50  # neither idle nor iowait, nor steal; guests are in user and nice
    assert host.busy_s() == pytest.approx(ticks / os.sysconf("SC_CLK_TCK"))
    assert host.cpus == 2


def test_memory_in_use_is_what_a_new_process_could_not_have(proc):
    host = Host(proc)
    assert host.ram_gb == pytest.approx(16.384)
    assert host.used_gb() == pytest.approx(10.24)


def test_this_machine_and_elsewhere(tmp_path):
    for host in (Host(), Host(tmp_path)):  # without /proc psutil answers
        assert host.cpus == os.cpu_count()
        assert 0.1 < host.used_gb() < host.ram_gb
    assert Host().busy_s() == pytest.approx(Host(tmp_path).busy_s(), abs=2)


def test_busy_seconds_move_with_work():
    host = Host()
    before, used = host.busy_s(), time.process_time()
    while time.process_time() < used + 0.5:
        pass
    assert host.busy_s() - before > 0.45
