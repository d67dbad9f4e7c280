import dataclasses

import pytest

from analysis.figures import plot_usage, usage, usage_info
from sbp_tune.energy.ledger import LedgerWriter
from sbp_tune.study.ledger import ledger_folder


@pytest.fixture
def metered(build, fake_node, tmp_path):
    """`metered(node, ...)`: a study with the ledgers of these nodes."""

    def study(*nodes):
        for node in nodes:
            with LedgerWriter(ledger_folder(tmp_path), node.inventory) as writer:
                for record in node.records[1:]:
                    writer.append(record)
        return dataclasses.replace(build.study(), path=tmp_path)

    return study


def values(info, quantity, device=None, node="alpha"):
    rows = info.usage[(info.usage["quantity"] == quantity) & (info.usage["node"] == node)]
    return rows[rows["device"] == device] if device is not None else rows


def test_usage_by_hand(fake_node, metered):
    node = fake_node()
    first, second = node.inventory.gpus
    node.open("a", "0", gpus={first: 1.0})
    node.run(10, {first: 60.0, second: 17.0}, {"a": 2.0}, {"a": 14.0}, kernels={"a": 0.5})
    node.run(10, {first: 40.0, second: 17.0}, {"a": 4.0}, kernels={"a": 1.0}, other=2.0)
    info = usage_info(metered(node))
    assert values(info, "gpu_w", first)["value"].tolist() == pytest.approx([60, 40])
    assert values(info, "gpu_w", second)["value"].tolist() == pytest.approx([17, 17])
    assert values(info, "gpu_busy", first)["value"].tolist() == pytest.approx([0.5, 1.0])
    assert values(info, "gpu_busy", second).empty  # no trial held it, so nothing is known
    assert values(info, "cpu_busy")["value"].tolist() == pytest.approx([2 / 8, 6 / 8])
    assert values(info, "ram")["value"].tolist()[-1] == pytest.approx(16 / 64)
    times = values(info, "cpu_busy")
    assert (times["time"] - times["start"]).tolist() == [10, 10]
    assert info.damage == 0


def test_many_snapshots_are_thinned_to_exact_means(fake_node, metered, monkeypatch):
    monkeypatch.setattr(usage, "POINTS", 10)
    node = fake_node()
    gpu = next(iter(node.inventory.gpus))
    for watts in range(100):
        node.run(1, {gpu: float(watts)})
    rows = values(usage_info(metered(node)), "gpu_w", gpu)
    assert len(rows) <= 12
    energy = (rows["value"] * (rows["time"] - rows["start"])).sum()
    assert energy == pytest.approx(sum(range(100)))


def test_no_line_is_drawn_across_a_time_without_a_meter(fake_node, metered):
    node = fake_node()
    node.run(10, steps=2)
    node.restart(100)
    node.run(10, steps=2)
    study = metered(node)
    rows = values(usage_info(study), "cpu_busy")
    assert rows["line"].nunique() == 2
    assert (rows["time"] - rows["start"]).max() == pytest.approx(5)
    assert None in plot_usage(study).data[0].x


def test_every_node_has_its_lines(fake_node, metered):
    nodes = [fake_node("alpha"), fake_node("beta")]
    for node in nodes:
        node.run(10)
    study = metered(*nodes)
    assert set(usage_info(study).usage["node"]) == {"alpha", "beta"}
    names = {trace.name for trace in plot_usage(study).data if trace.showlegend}
    assert names == {"alpha", "beta", "alpha GPU 0", "alpha GPU 1", "beta GPU 0", "beta GPU 1"}


def test_no_ledger_no_usage(build, tmp_path):
    study = dataclasses.replace(build.study(), path=tmp_path)
    assert usage_info(study).usage.empty
    assert "No energy ledger" in plot_usage(study).layout.annotations[0].text


def test_a_node_that_has_only_just_begun(fake_node, metered):
    assert usage_info(metered(fake_node())).usage.empty
