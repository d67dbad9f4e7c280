from __future__ import annotations

import json
import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sbp_tune.energy.records import (
    EpochMark,
    Gap,
    GpuInfo,
    Inventory,
    LeaseClosed,
    LeaseOpened,
    LeaseUse,
    Snapshot,
    decode,
    encode,
)
from sbp_tune.errors import SbpTuneError

UUID = "GPU-1a6f2f0c-8a2d-4b7e-9d9b-0c4b2f6e7a11"
INVENTORY = Inventory(
    "alpha",
    "boot-1",
    1.0,
    1.7e9,
    {UUID: GpuInfo("Tesla T4", 70.0, "counter", 0.1), "MIG-1": GpuInfo("a part", None, "none", None)},
    4,
    "model",
    0.5,
    0.74,
    2.76,
    "model",
    0.5,
    0.392,
    16.0,
)

floats = st.floats(allow_nan=False, allow_infinity=False)
names = st.text(min_size=1, max_size=8)
joules = st.dictionaries(names, st.none() | floats, max_size=3)
uses = st.builds(LeaseUse, floats, floats, joules)
records = st.one_of(
    st.builds(
        Snapshot, floats, floats, joules, st.none() | floats, st.none() | floats, floats, floats,
        st.dictionaries(names, uses, max_size=2), joules, st.dictionaries(names, names, max_size=2),
    ),
    st.builds(
        LeaseOpened, names, st.none() | names, st.integers(), floats,
        st.dictionaries(names, st.floats(0, 1, exclude_min=True)), st.floats(0, 256), st.integers(), st.integers(0, 99),
    ),
    st.builds(LeaseClosed, names, floats, st.sampled_from(["finished", "stopped", "failed", "died"])),
    st.builds(EpochMark, names, floats, st.integers(), st.booleans()),
    st.builds(Gap, floats, floats, names),
    st.just(INVENTORY),
)  # fmt: skip


@given(records)
def test_a_record_comes_back_equal(record):
    text = encode(record)
    assert decode(text) == decode(text.encode()) == record
    assert json.loads(text)["kind"] == record.kind
    assert "\n" not in text


def test_a_missing_reading_is_null_and_not_zero():
    snapshot = Snapshot(1.0, 2.0, {UUID: None}, None, None, 3.0, 4.0, {})
    assert json.loads(encode(snapshot))["gpu_j"] == {UUID: None}
    assert decode(encode(snapshot)).cpu_j is None


def test_fields_of_a_newer_version_are_passed_over_and_optional_ones_may_be_absent():
    old = '{"kind":"snapshot","time":1,"wall":2,"gpu_j":{},"cpu_j":null,"dram_j":null,"busy_cpu_s":3,"used_gb":4,'
    assert decode(old + '"leases":{"a":{"cpu_s":1,"memory_gb":2,"disk_gb":3}},"fans":9}') == Snapshot(
        1.0, 2.0, {}, None, None, 3.0, 4.0, {"a": LeaseUse(1.0, 2.0)}
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"kind":"battery","time":1}', "kind 'battery' is none of inventory, .*; was it written by a newer sbp-tune"),
        ('{"time":1}', "kind"),
        ("[1]", "object"),
        ('{"kind":"gap"', "JSON"),
        ('{"kind":"gap","start":1,"end":2}', "gap.reason: Field required"),
        ('{"kind":"gap","start":"1","end":2,"reason":"x"}', "gap.start: .*number"),
        ('{"kind":"gap","start":true,"end":2,"reason":"x"}', "gap.start: .*number"),
        ('{"kind":"gap","start":NaN,"end":2,"reason":"x"}', "gap.start: .*finite"),
        ('{"kind":"lease_closed","lease":"a","time":1,"reason":"bored"}', "reason: .*'finished', 'stopped'"),
        ('{"kind":"epoch","lease":1,"time":"x","epoch":1,"checkpointed":true}', "lease: .*string.*1 more problem"),
    ],
)
def test_what_is_no_record_is_refused_in_one_line(text, problem):
    with pytest.raises(SbpTuneError, match=f"^not a ledger record: .*{problem}[^\n]*$"):
        decode(text)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_number_that_is_not_finite_is_not_written(value):
    with pytest.raises(SbpTuneError, match="gap record cannot be written"):
        encode(Gap(value, 1.0, "x"))


@pytest.mark.parametrize("fraction", [0, -0.5, 1.5, 50])
def test_a_share_of_a_gpu_is_a_fraction(fraction):
    with pytest.raises(SbpTuneError, match=f"lease a: .* of GPU {UUID}: a fraction is above 0, at most 1"):
        LeaseOpened("a", "t", 1, 0.0, {UUID: fraction}, 1, 42)


@pytest.mark.parametrize(("cpus", "epoch"), [(-1, 0), (1, -1)])
def test_a_lease_needs_sensible_numbers(cpus, epoch):
    with pytest.raises(SbpTuneError, match="at least 0"):
        LeaseOpened("a", "t", 1, 0.0, {}, cpus, 42, epoch)


@pytest.mark.parametrize(("source", "uncertainty"), [("none", 0.1), ("counter", None), ("model", -0.1)])
def test_a_source_has_an_uncertainty_and_no_source_has_none(source, uncertainty):
    with pytest.raises(SbpTuneError, match="GPU T4: source"):
        GpuInfo("T4", 70.0, source, uncertainty)


def test_an_inventory_of_nothing_is_refused():
    with pytest.raises(SbpTuneError, match=r"inventory of alpha: .*cpus=0"):
        decode(encode(INVENTORY).replace('"cpus":4', '"cpus":0'))


def test_writing_needs_no_heavy_import():
    code = "import sys, sbp_tune.energy.attribution, sbp_tune.energy.ledger; print('pydantic' in sys.modules)"
    heavy = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert heavy.stdout == "False\n"
