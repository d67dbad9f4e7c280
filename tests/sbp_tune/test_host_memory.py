"""Whether freed memory stays, counted in pages that the system had to hand out; each case in a process of its own."""

import json
import os
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator is glibc's")

SCRIPT = """
import json, resource, sys, threading
import psutil
from sbp_tune.host_memory import keep_freed_memory, return_freed_memory

SIZE = 40 * 2**20  # above every threshold at which glibc asks the system, below what an arena of a thread holds

def pages(rounds):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(rounds):
        b"x" * SIZE
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def work():
    kept = keep_freed_memory()
    pages(2)
    faults, held = pages(10), psutil.Process().memory_info().rss
    return_freed_memory()
    print(json.dumps({"kept": kept, "faults": faults, "returned": held - psutil.Process().memory_info().rss}))

thread = threading.Thread(target=work)
thread.start() if sys.argv[1] == "thread" else work()
"""


def outcome(where, **environment):
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    run = [sys.executable, "-c", SCRIPT, where]
    return json.loads(subprocess.run(run, env=own | environment, check=True, capture_output=True, text=True).stdout)


def test_what_is_freed_is_used_again_until_it_is_returned():
    found = outcome("main")
    assert found["kept"]
    assert found["faults"] < 1000  # of 100,000 pages that were written
    assert found["returned"] > 0.9 * 40 * 2**20


def test_a_thread_keeps_too():
    found = outcome("thread")
    assert found["kept"] and found["faults"] < 1000


@pytest.mark.parametrize(
    "environment", [{"MALLOC_ARENA_MAX": "2"}, {"GLIBC_TUNABLES": "glibc.malloc.perturb=0"}], ids=["malloc", "tunables"]
)
def test_who_has_set_the_allocator_keeps_that(environment):
    found = outcome("main", **environment)
    assert not found["kept"] and found["faults"] > 90_000
