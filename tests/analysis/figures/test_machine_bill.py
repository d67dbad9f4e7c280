import dataclasses
import math

import pytest

from analysis.figures import machine_bill_info, plot_machine_bill
from sbp_tune.energy.ledger import LedgerWriter
from sbp_tune.study.ledger import ledger_folder
from sbp_tune.units import readable_energy


def lines(info):
    return {name: row.round(9).tolist() for name, row in info.lines.iterrows()}


def write_ledger(path, node):
    with LedgerWriter(ledger_folder(path), node.inventory) as writer:
        for record in node.records[1:]:
            writer.append(record)


def test_a_study_without_a_ledger_is_billed_by_its_trials(build):
    study = build.study(
        build.sparse(0.9, 10.0, kwh_measured_share=0.75),
        build.sparse(0.9, 8.0, kwh_measured_share=0.5, kwh_wasted=2.0),
        build.sparse(0.5, 1.0, state="stopped"),  # no word on its source
        build.trial(state="failed", kwh=4.0, kwh_measured_share=0.0, kwh_wasted=math.nan),
        build.trial(state="failed"),
    )
    info = machine_bill_info(study)
    assert lines(info) == {
        "trained to the end": [7.5 + 3.0, 2.5 + 3.0, 0.0],
        "stopped early": [0.0, 0.0, 1.0],
        "failed": [0.0, 4.0, 0.0],
        "repeated after crashes": [1.0, 1.0, 0.0],
    }
    assert not info.overhead
    assert "No meter ran" in plot_machine_bill(study).layout.title.text


def test_with_a_ledger_the_lines_sum_to_the_machines(build, fake_node, tmp_path):
    node = fake_node()
    gpu = next(iter(node.inventory.gpus))
    node.open("lease-0", "0", gpus={gpu: 1.0})
    node.run(3600, {gpu: 50.0}, {"lease-0": 1.0}, {"lease-0": 4.0})
    node.close("lease-0")
    node.run(3600)
    write_ledger(tmp_path, node)
    study = dataclasses.replace(build.study(build.sparse(0.9, 0.05, state="stopped")), path=tmp_path)
    info = machine_bill_info(study)
    assert info.overhead and info.problem is None
    assert list(info.lines.index) == ["stopped early", "idle hardware", "other processes"]
    assert info.lines.loc["stopped early", "measured"] == pytest.approx(0.05)
    from analysis.bill import bill_info

    assert info.lines.to_numpy().sum() == pytest.approx(bill_info(study).machine.kwh)
    figure = plot_machine_bill(study)
    assert [trace.name for trace in figure.data] == ["measured", "modelled"]
    total = readable_energy(info.lines.loc["stopped early"].sum())
    assert figure.data[0].y[0] == f"stopped early: {total}"


def test_nothing_used_nothing(build):
    for trials in ([], [build.trial(state="failed")], [build.sparse(0.9, 0.0)]):
        assert machine_bill_info(build.study(*trials)).lines.empty
        assert "No energy" in plot_machine_bill(build.study(*trials)).layout.annotations[0].text


def test_what_an_attempt_wasted_is_a_line_of_its_own(build, fake_node, tmp_path):
    node = fake_node()
    gpu = next(iter(node.inventory.gpus))
    for attempt, hours in ((1, 1), (2, 3)):  # the second begins afresh, so all of the first was in vain
        node.open(f"lease-{attempt}", "0", gpus={gpu: 1.0}, attempt=attempt)
        node.run(3600 * hours, {gpu: 60.0})
        node.close(f"lease-{attempt}", "failed" if attempt == 1 else "finished")
    write_ledger(tmp_path, node)
    study = dataclasses.replace(build.study(build.sparse(0.9, 0.24)), path=tmp_path)
    measured = machine_bill_info(study).lines["measured"]
    assert measured["repeated after crashes"] == pytest.approx(0.06)
    assert measured["trained to the end"] == pytest.approx(0.18)
