"""A node whose counters follow the watts and cores that a test says, and the records that a meter would write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import strategies as st

from sbp_tune.energy.records import (
    EpochMark,
    Gap,
    GpuInfo,
    Inventory,
    LeaseClosed,
    LeaseOpened,
    LeaseUse,
    Record,
    Snapshot,
)

GPUS = ["GPU-1a6f2f0c-8a2d-4b7e-9d9b-0c4b2f6e7a11", "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"]
WALL = 1.7e9
CORES, IDLE_W, BUSY_W, W_PER_GB, RAM_GB = 8, 1.0, 3.0, 0.5, 64.0


class FakeNode:
    """`records` is its ledger so far. Without RAPL unless `rapl`; GPUs are T4s with 17 W idle."""

    def __init__(self, name: str = "alpha", *, rapl: bool = False, start: float = 1000.0, **changes) -> None:
        self.time, self.boot, self.rapl = start, 1, rapl
        gpus = {uuid: GpuInfo("Tesla T4", 70.0, "counter", 0.1, idle_w=17.0) for uuid in GPUS}
        self.inventory = Inventory(
            name,
            "boot-1",
            start,
            WALL + start,
            gpus,
            CORES,
            "counter" if rapl else "model",
            0.05 if rapl else 0.5,
            IDLE_W,
            BUSY_W,
            "counter" if rapl else "model",
            0.05 if rapl else 0.5,
            W_PER_GB,
            RAM_GB,
        )
        self.inventory = replace(self.inventory, **changes)
        self.gpu_j = dict.fromkeys(self.inventory.gpus, 123456789.0)
        self.power_j = dict.fromkeys(self.inventory.gpus, 0.0)
        self.cpu_j = self.dram_j = 0.0
        self.busy_s, self.used_gb = 5000.0, 2.0
        self.use: dict[str, LeaseUse] = {}
        self.records: list[Record] = [self.inventory]
        self.snapshot()

    def snapshot(self) -> None:
        gpus = self.inventory.gpus
        self.records.append(
            Snapshot(
                self.time,
                WALL + self.time,
                {uuid: None if gpus[uuid].source == "none" else joules for uuid, joules in self.gpu_j.items()},
                self.cpu_j if self.rapl else None,
                self.dram_j if self.rapl else None,
                self.busy_s,
                self.used_gb,
                dict(self.use),
            )
        )

    def open(
        self, lease: str, trial: str | None = None, *, gpus: Mapping[str, float] | None = None, cpus: float = 2, **more
    ) -> None:
        """With the snapshot at its edge; CPU time that the process used before is not the lease's."""
        opened = LeaseOpened(lease, trial, more.pop("attempt", 1), self.time, dict(gpus or {}), cpus, pid=42, **more)
        self.use[lease] = LeaseUse(7.0, 1.0, dict.fromkeys(opened.gpus, 3.0))
        self.snapshot()
        self.records.append(opened)

    def close(self, lease: str, reason="finished") -> None:
        self.snapshot()
        self.records.append(LeaseClosed(lease, self.time, reason))
        del self.use[lease]

    def mark(self, lease: str, epoch: int, checkpointed: bool = True) -> None:
        self.records.append(EpochMark(lease, self.time, epoch, checkpointed))

    def run(
        self,
        seconds: float,
        watts: Mapping[str, float] | None = None,
        cores: Mapping[str, float] | None = None,
        gb: Mapping[str, float] | None = None,
        *,
        kernels: Mapping[str, float] | None = None,
        other: float = 0.0,
        cpu_w: float = 0.0,
        dram_w: float = 0.0,
        steps: int = 1,
    ) -> None:
        """Some time at constant rates: W by GPU, busy cores, GB and share of time in kernels by lease."""
        for lease, size in (gb or {}).items():
            self.use[lease] = replace(self.use[lease], memory_gb=size)
        self.used_gb = 2.0 + sum(use.memory_gb for use in self.use.values())
        if gb:
            self.snapshot()
        for _ in range(steps):
            self._step(seconds / steps, watts or {}, cores or {}, kernels or {}, other)
            self.cpu_j += cpu_w * seconds / steps
            self.dram_j += dram_w * seconds / steps
            self.snapshot()

    def restart(self, seconds: float, *, boot: bool = False, alive: tuple[str, ...] = ()) -> None:
        """The meter is away for some time, in which the GPUs draw 30 W; after it only `alive` leases are there."""
        start = self.time
        self._step(seconds, dict.fromkeys(self.inventory.gpus, 30.0), {}, {}, 0.0)
        self.use = {lease: replace(use, cpu_s=1.0) for lease, use in self.use.items() if lease in alive}
        self.cpu_j = self.dram_j = 0.0
        if boot:
            self.boot, self.time, self.busy_s = self.boot + 1, 5.0, 1.0
            self.gpu_j = dict.fromkeys(self.gpu_j, 0.0)
        self.inventory = replace(self.inventory, boot=f"boot-{self.boot}", time=self.time, wall=WALL + start + seconds)
        self.records += [self.inventory, Gap(WALL + start, WALL + start + seconds, "the meter did not run")]
        self.snapshot()

    def _step(self, seconds: float, watts, cores, kernels, other: float) -> None:
        self.time += seconds
        for uuid in self.gpu_j:
            self.gpu_j[uuid] += watts.get(uuid, 17.0) * seconds
        self.busy_s += (other + sum(cores.values())) * seconds
        for lease, use in self.use.items():
            busy = {
                uuid: None if busy is None or kernels.get(lease) is None else busy + kernels[lease] * seconds
                for uuid, busy in use.gpu_busy_s.items()
            }
            self.use[lease] = replace(use, cpu_s=use.cpu_s + cores.get(lease, 0.0) * seconds, gpu_busy_s=busy)


@pytest.fixture(scope="session")
def fake_node() -> type[FakeNode]:
    return FakeNode


@pytest.fixture(scope="session")
def gpus() -> list[str]:
    return list(GPUS)


_PART = st.floats(0, 1)
_RUN = st.tuples(
    st.just("run"),
    st.floats(0.01, 100),
    st.tuples(*[st.floats(1, 75)] * len(GPUS)),
    st.lists(st.tuples(_PART, st.floats(0, 20), st.none() | _PART), min_size=4, max_size=4),
    _PART,
    st.integers(1, 3),
)
_OPEN = st.tuples(
    st.just("open"),
    st.sampled_from(["one", "two", "three", None]),
    st.dictionaries(st.sampled_from(GPUS), st.sampled_from([0.25, 0.5, 1.0])),
    st.sampled_from([0, 0.5, 2, 6]),
    st.integers(0, 3),
)
_CLOSE = st.tuples(st.just("close"), st.integers(0, 3), st.sampled_from(["finished", "stopped", "failed", "died"]))
_MARK = st.tuples(st.just("mark"), st.integers(0, 3), st.booleans())
_AWAY = st.tuples(st.just("away"), st.floats(0.1, 50), st.booleans(), st.booleans())


def _play(rapl: bool, actions: list[tuple]) -> FakeNode:
    """Whatever is drawn becomes something that can happen; leases may well promise more than there is."""
    node = FakeNode(rapl=rapl)
    epochs: dict[str, int] = {}
    for number, (kind, *what) in enumerate(actions):
        leases = list(node.use)
        match kind, what:
            case "run", [seconds, watts, uses, other, steps]:
                uses = dict(zip(leases, uses, strict=False))
                node.run(
                    seconds,
                    dict(zip(GPUS, watts, strict=True)),
                    {lease: use[0] for lease, use in uses.items()},
                    {lease: use[1] for lease, use in uses.items()},
                    kernels={lease: use[2] for lease, use in uses.items()},
                    other=other,
                    cpu_w=4 + 10 * other,
                    dram_w=3,
                    steps=steps,
                )
            case "open", [trial, held, cpus, continued] if len(leases) < 4:
                lease = f"lease-{number}"
                node.open(lease, trial, gpus=held, cpus=cpus, attempt=number, continued_epoch=continued)
                epochs[lease] = continued
            case "close", [which, reason] if which < len(leases):
                node.close(leases[which], reason)
            case "mark", [which, checkpointed] if which < len(leases):
                epochs[leases[which]] += 1
                node.mark(leases[which], epochs[leases[which]], checkpointed)
            case "away", [seconds, boot, live]:
                node.restart(seconds, boot=boot, alive=tuple(leases) if live and not boot else ())
    return node


@pytest.fixture(scope="session")
def histories() -> st.SearchStrategy[FakeNode]:
    """Nodes on which anything has happened."""
    actions = st.lists(st.one_of(_RUN, _RUN, _OPEN, _OPEN, _CLOSE, _MARK, _AWAY), max_size=14)
    return st.builds(_play, st.booleans(), actions)
