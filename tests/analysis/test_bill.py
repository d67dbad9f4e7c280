"""Bills worked out by hand. The node: 8 cores at 1 W idle and 3 W busy, 64 GB at 0.5 W, T4s at 17 W idle."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console
from typer.testing import CliRunner

from analysis.bill import bill_info, bill_json
from analysis.bill_tables import print_bill
from analysis.report import write_report
from sbp_tune.cli import app
from sbp_tune.energy.ledger import LedgerWriter
from sbp_tune.energy.records import GpuInfo
from sbp_tune.errors import InputError, SbpTuneError
from sbp_tune.study.results import load_study
from sbp_tune.study.storage import create_study

JOULES = 3.6e6
# J of each part of `story`, gpu, cpu, ram
PARTS = {
    "trials": (6000 + 2000 + 85, (200 + 450) + (80 + 120) + 2 * (30 + 90) + 10, 400 + 80 + 2 * 15 + 5),
    "machine": (12760, 8 * 210 + 3 * (150 + 40 + 60), 32 * 210),
}


def kwh(joules):
    return pytest.approx(joules / JOULES)


def story(fake_node, held, **changes):
    """A control; a trial stopped after 2 epochs; one that died and began afresh; a short one on half a GPU."""
    node = fake_node(**changes)
    node.open("d", None, cpus=0)
    node.open("a", "0", gpus={held[0]: 1.0}, cpus=2, attempt=0)
    node.run(100, {held[0]: 60}, {"a": 1.5}, {"a": 8}, steps=10)
    node.close("a")
    node.open("b", "1", gpus={held[0]: 1.0}, cpus=2, attempt=0)
    for epoch in (1, 2):
        node.run(20, {held[0]: 50}, {"b": 1}, {"b": 4}, steps=2)
        node.mark("b", epoch)
    node.close("b", "stopped")
    for attempt in (0, 1):
        node.open(f"c{attempt}", "2", cpus=1, attempt=attempt)
        node.run(30, cores={f"c{attempt}": 1}, gb={f"c{attempt}": 1}, steps=3)
        node.close(f"c{attempt}", "finished" if attempt else "died")
    node.open("e", "3", gpus={held[1]: 0.5}, cpus=1, attempt=0)
    node.run(10, steps=2)
    node.close("e")
    return node


def write_ledger(path, node):
    with LedgerWriter(path / "energy", node.records[0]) as ledger:
        for record in node.records[1:]:
            ledger.append(record)


@pytest.fixture
def gpus(fake_node):
    return list(fake_node().inventory.gpus)


@pytest.fixture
def study(build, tmp_path):
    """The study that `story` is the ledger of, and a trial that never began."""
    made = build.study(
        build.control(0.8, 1e-5, epochs=2),
        build.trial("mask", state="stopped", epochs=10),
        build.sparse(0.7, 1e-5, epochs=2),
        build.sparse(0.6, 1e-5, epochs=2),
        build.trial("mask", state="interrupted", epochs=2),
    )
    return replace(made, path=tmp_path)


def shown(info):
    text = io.StringIO()
    print_bill(info, Console(file=text, width=250))
    return text.getvalue()


def test_the_bill_of_a_study_by_hand(study, fake_node, gpus):
    write_ledger(study.path, story(fake_node, gpus))
    info = bill_info(study)
    rows = {row.trial: row for row in info.trials}
    assert [(row.trial, row.estimator, row.state) for row in info.trials] == [
        ("0", "dense", "complete"),
        ("1", "mask", "stopped"),
        ("2", "batch_slice", "complete"),
        ("3", "batch_slice", "complete"),
        ("4", "mask", "interrupted"),
    ]
    assert [row.attempts for row in info.trials] == [1, 1, 2, 1, 0]
    assert [rows[name].kwh for name in "0123"] == [kwh(7050), kwh(2280), kwh(270), kwh(100)]
    assert [rows[name].kwh_wasted for name in "0123"] == [0, 0, kwh(135), 0]
    assert (rows["0"].measured_kwh, rows["0"].modelled_kwh) == (kwh(6000), kwh(1050))
    assert rows["2"].measured_kwh == 0
    # 6000 J at 10.1 %, 650 J and 400 J at 50 %, of 7050 J
    assert rows["0"].uncertainty == pytest.approx((606**2 + 325**2 + 200**2) ** 0.5 / 7050)
    assert [rows[name].flags for name in "0124"] == [(), (), (), ("not in the ledger",)]
    assert rows["3"].flags == ("shared GPU", "too short to rank") and rows["4"].kwh is None

    lines = {line.line: line for line in (*info.lines, info.machine)}
    for name, parts in PARTS.items():
        assert lines[name].components == dict(zip(("gpu", "cpu", "ram"), map(kwh, parts), strict=True))
        assert (lines[name].measured_kwh, lines[name].modelled_kwh) == (kwh(parts[0]), kwh(sum(parts[1:])))
    assert lines["driver"].components == {"cpu": 0, "ram": kwh(0.5 * 210)}
    assert lines["idle"].components["gpu"] == kwh(12760 - 8085)
    assert lines["other"].components["ram"] == kwh(0.5 * 2 * 210)
    assert sum(line.kwh for line in info.lines) == pytest.approx(info.machine.kwh) and info.conserved < 1e-9
    assert {name: part.source for name, part in info.components.items()} == {
        "gpu": "counter",
        "cpu": "model",
        "ram": "model",
    }
    assert info.wasted_kwh == kwh(135)
    assert (info.saved.kwh, info.saved.trials, info.saved.unknown) == (kwh(10 * 1140 - 2280), 1, 0)
    assert info.co2 is None and info.seconds == pytest.approx(210)
    assert (info.gaps, info.not_measured, info.cross_check) == ((), (), ())


def test_what_the_terminal_says(study, fake_node, gpus):
    write_ledger(study.path, story(fake_node, gpus))
    text = shown(bill_info(study))
    for part in (
        "shared, short",
        "too short to rank",
        "idle hardware",
        "modelled",
        "measured (energy counter)",
        "The lines sum to the machines.",
        "Wasted, in attempts from which no later one continued: 37.5 mWh.",
        "Saved by early stopping, an estimate: 2.53 Wh (1 stopped trials",
        "No CO2: the study names no place",
    ):
        assert part in text


def test_numbers_are_not_cut_on_a_terminal_of_80_columns(study, fake_node, gpus):
    write_ledger(study.path, story(fake_node, gpus))
    text = io.StringIO()
    print_bill(bill_info(study), Console(file=text, width=80))
    assert "…" not in text.getvalue() and "1.96 Wh" in text.getvalue()


def test_co2_says_country_and_pue(study, fake_node, gpus):
    write_ledger(study.path, story(fake_node, gpus))
    info = bill_info(replace(study, study={"energy": {"country": "IRL", "pue": 1.5}}))
    per_kwh = info.co2.kg_per_kwh * 1.5
    assert (info.co2.place, info.co2.pue) == ("IRL", 1.5) and 0.2 < info.co2.kg_per_kwh < 0.4
    assert info.co2.trials_kg == pytest.approx(9700 / JOULES * per_kwh)
    assert info.co2.machine_kg == pytest.approx(info.machine.kwh * per_kwh)
    assert "(IRL, 2" in shown(info) and "PUE 1.5" in shown(info)


def test_a_stopped_trial_without_an_epoch_saves_nothing_that_can_be_told(study, fake_node, gpus):
    node = fake_node()
    node.open("b", "1", cpus=2)
    node.run(30, cores={"b": 1}, steps=3)
    write_ledger(study.path, node)
    info = bill_info(study)
    assert (info.saved.kwh, info.saved.trials, info.saved.unknown) == (0, 0, 1)
    assert "of 1 more, without an epoch, nothing can be said" in shown(info)


def test_a_gpu_that_cannot_be_measured_is_named_and_leaves_no_number(study, fake_node, gpus):
    broken = {gpus[0]: GpuInfo("A100 [MIG]", None, "none", None)}
    write_ledger(study.path, story(fake_node, gpus, gpus=broken | {gpus[1]: fake_node().inventory.gpus[gpus[1]]}))
    info = bill_info(study)
    first = info.trials[0]
    assert first.kwh is None and first.uncertainty is None and first.flags == ("no source for gpu",)
    assert (first.measured_kwh, first.modelled_kwh) == (0, kwh(1050))
    assert any("A100 [MIG]" in name for name in info.not_measured)
    assert "Not measured, and in none of these numbers: " in shown(info) and "A100 [MIG]" in shown(info)


def test_gaps_and_damage_are_named(study, fake_node, gpus):
    node = fake_node()
    node.open("a", "0", cpus=2)
    node.run(30, cores={"a": 1}, steps=3)
    node.restart(60)
    write_ledger(study.path, node)
    ledger = next((study.path / "energy").glob("ledger-*.jsonl"))
    lines = ledger.read_text().splitlines(keepends=True)
    ledger.write_text("".join([*lines[:4], lines[4].replace("7", "8", 1), *lines[5:]]))
    info = bill_info(study)
    assert any("for 60 s: the meter did not run" in gap for gap in info.gaps)
    assert any(f"{ledger.name}:5: " in problem for problem in info.problems)
    assert f"Warning: {info.problems[0]}" in shown(info) and "Gap: from 2023-" in shown(info)


def test_the_json_is_the_same_bill(study, fake_node, gpus):
    write_ledger(study.path, story(fake_node, gpus))
    info = bill_info(study)
    read = json.loads(bill_json(info))
    assert read["machine"]["kwh"] == info.machine.kwh and read["trials"][4]["kwh"] is None
    assert read["components"]["gpu"]["source"] == "counter" and read["saved"]["trials"] == 1


def test_without_a_ledger_or_with_an_impossible_one_there_is_no_bill(study, fake_node, gpus):
    with pytest.raises(InputError, match="no energy ledger"):
        bill_info(study)
    node = fake_node()
    node.open("a", "0", gpus={gpus[0]: 1.0})
    node.run(100, {gpus[0]: 1034}, {"a": 1}, steps=10)
    write_ledger(study.path, node)
    with pytest.raises(SbpTuneError, match=r"mean power 1034 W .* is above its limit of 70 W"):
        bill_info(study)


def cross_checked(study, node, start, end, **kwh):
    run = {"version": "3.3.2", "node": "alpha", "start": 1.7e9 + start, "end": 1.7e9 + end, "kwh": kwh, "error": None}
    (study.path / "energy" / "codecarbon.json").write_text(json.dumps({"runs": [run]}))


def test_codecarbon_stands_beside_the_same_time_of_the_ledger(study, fake_node, gpus):
    node = story(fake_node, gpus)  # its clock starts at 1000
    write_ledger(study.path, node)
    cross_checked(study, node, 1005, 1055, gpu=77 * 50 / JOULES, cpu=1 / JOULES, ram=20 * 50 / JOULES)
    info = bill_info(study)
    gpu, cpu, ram = info.cross_check
    assert gpu.kwh == kwh(77 * 50) and gpu.difference == pytest.approx(0) and gpu.source == "counter"
    assert cpu.kwh == kwh((8 + 4.5) * 50) and ram.kwh == kwh(32 * 50)
    assert ram.difference == pytest.approx(20 / 32 - 1)
    text = shown(info)
    assert "CodeCarbon's model" in text and "never added" in text and "-37.5 %" in text
    assert sum(line.kwh for line in info.lines) == pytest.approx(info.machine.kwh)


def test_a_cross_check_outside_the_ledger_compares_nothing(study, fake_node, gpus):
    write_ledger(study.path, story(fake_node, gpus))
    cross_checked(study, None, 10, 20, gpu=None, cpu=1.0, ram=1.0)
    assert [(row.kwh, row.codecarbon_kwh, row.difference) for row in bill_info(study).cross_check] == [
        (None, 1.0, None),
        (None, 1.0, None),
    ]


def test_the_report_has_overhead_and_waste_if_there_is_a_ledger(study, fake_node, gpus, tmp_path):
    without = write_report(study, tmp_path / "without.html").read_text(encoding="utf-8")
    assert "idle hardware" not in without and "not the idle time of the machines" in without
    write_ledger(study.path, story(fake_node, gpus))
    text = write_report(study, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "idle hardware" in text and "Wasted, in attempts" in text and "an estimate" in text


def test_the_report_of_an_impossible_ledger_says_so(study, fake_node, gpus, tmp_path):
    node = fake_node()
    node.open("a", "0", gpus={gpus[0]: 1.0})
    node.run(100, {gpus[0]: 1034}, {"a": 1}, steps=10)
    write_ledger(study.path, node)
    assert "is above its limit of 70 W" in write_report(study, tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.fixture
def directory(tmp_path):
    """A study directory as the command reads it, one trial begun."""
    path = tmp_path / "results" / "demo"
    path.mkdir(parents=True)
    objectives = {"val_accuracy": "max", "kwh": "min"}
    (path / "study.yaml").write_text(f"name: demo\nobjectives: {json.dumps(objectives)}\n")
    create_study(path, "demo", objectives, {}).ask()
    return path


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_the_command(options, directory, fake_node, gpus):
    write_ledger(directory, story(fake_node, gpus))
    result = CliRunner().invoke(app, ["energy", "demo", "--results", str(directory.parent), *options])
    assert result.exit_code == 0, result.output
    if options:
        assert json.loads(result.stdout)["trials"][0]["state"] == "interrupted"
    else:
        assert "Where it went" in result.stdout


def test_the_command_without_a_ledger_and_with_an_impossible_one(directory, fake_node, gpus):
    result = CliRunner().invoke(app, ["energy", str(directory)])
    assert result.exit_code == 2 and len(result.stderr.strip().splitlines()) == 1
    node = fake_node()
    node.run(100, {gpus[0]: 1034}, steps=10)
    write_ledger(directory, node)
    result = CliRunner().invoke(app, ["energy", str(directory)])
    assert result.exit_code == 1 and "is above its limit of 70 W" in result.stderr


def test_a_confirmation_has_a_bill_of_its_own(directory, fake_node, gpus):
    write_ledger(directory, story(fake_node, gpus))
    alone = bill_info(load_study(directory))
    (directory / "confirm").mkdir()
    (directory / "confirm" / "study.yaml").write_text((directory / "study.yaml").read_text())
    create_study(directory / "confirm", "demo", {"val_accuracy": "max", "kwh": "min"}, {}).ask()
    assert bill_info(load_study(directory)) == alone  # simulated, say: it has no ledger
    node = fake_node()
    node.open("a", "0", gpus={gpus[0]: 1.0}, cpus=2, attempt=0)
    node.run(100, {gpus[0]: 36}, steps=10)
    node.close("a")
    write_ledger(directory / "confirm", node)
    info = bill_info(load_study(directory))
    assert replace(info, confirmation=None) == alone
    assert info.confirmation.lines[0].components["gpu"] == kwh(3600)
    said = "Confirmation, beside the search and in none of these numbers nor its budget: "
    assert said in shown(info) and said not in shown(alone)
    assert json.loads(bill_json(info))["confirmation"]["trials"][0]["trial"] == "0"
