from __future__ import annotations

import itertools
import json

import moocore
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.search_quality.__main__ import main
from benchmarks.search_quality.peers import PEERS, Peer
from benchmarks.search_quality.problems import problems, sparse_backprop_config
from benchmarks.search_quality.simulator import Run, run, simulate
from benchmarks.search_quality.table import reached, table, text
from trainables.response import true_accuracy, true_kwh

PROBLEMS = problems()
BOTORCH = {"ZDT1": 120 + 2 / 3, "ZDT2": 120 + 1 / 3, "ZDT3": 128.77811613069076}  # at (11, 11)


def point(*x):
    return {f"x{index}": float(value) for index, value in enumerate(x)}


@pytest.mark.parametrize("name", list(BOTORCH))
def test_the_front_of_zdt_has_botorchs_hypervolume(name):
    front = np.array([PROBLEMS[name].true(point(f, 0, 0, 0, 0, 0)) for f in np.linspace(0, 1, 4001)])
    assert moocore.hypervolume(front, ref=[11, 11]) == pytest.approx(BOTORCH[name], rel=1e-4)


@pytest.mark.parametrize("name", ["ZDT1", "ZDT2", "ZDT3", "DTLZ2"])
def test_the_maximum_is_that_of_a_dense_sample_of_the_true_front(name):
    rest = 0.5 if name == "DTLZ2" else 0.0
    front = [PROBLEMS[name].true(point(f, *[rest] * 5)) for f in np.linspace(0, 1, 4001)]
    found = reached(PROBLEMS[name], front, len(front))
    assert 0.999 < found / PROBLEMS[name].maximum <= 1


def test_branin_currin_reaches_botorchs_maximum_and_not_more():
    problem = PROBLEMS["Branin-Currin"]
    assert problem.true(point((np.pi + 5) / 15, 2.275 / 15))[0] == pytest.approx(0.397887, abs=1e-5)
    assert problem.true(point(0, 1))[1] == pytest.approx((1 - np.exp(-0.5)) * 3)
    corner = itertools.product(np.linspace(0, 0.13, 401), np.linspace(0.8, 1, 101))  # where its front lies
    values = [problem.true(point(*x)) for x in corner]
    assert 0.99 < reached(problem, values, len(values)) / problem.maximum <= 1


def test_the_maximum_of_the_response_is_that_of_its_best_configs():
    """At the best learning rate and slope, with p constant: of one cost the last p weighs most."""
    best = {"optimizer.lr": 0.1, "sparsity.layers.profile": "ramp", "sparsity.layers.slope": 0.5}
    values = [
        PROBLEMS["sparse-backprop"].true(
            {**best, "epochs": epochs, "sparsity.estimator": name, "sparsity.schedule": "constant", "sparsity.p0": p}
        )
        for epochs in (25, 50, 100)
        for name in ("batch_slice", "branch_drop")
        for p in np.linspace(0.1, 1, 61).tolist()
    ]
    assert 0.99 < reached(PROBLEMS["sparse-backprop"], values, len(values)) / PROBLEMS["sparse-backprop"].maximum <= 1


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_no_point_lies_beyond_the_maximum_of_the_response(data):
    problem = PROBLEMS["sparse-backprop"]
    rows = []
    for _ in range(8):
        values = {}
        for parameter in problem.space.parameters:
            domain = parameter.domain
            values[parameter.key] = data.draw(
                st.sampled_from(domain.values) if hasattr(domain, "values") else st.floats(domain.low, domain.high)
            )
        rows.append(problem.true({key: values[key] for key in problem.space.active(values)}))
    assert reached(problem, rows, len(rows)) <= problem.maximum


def test_noise_is_told_and_not_scored():
    problem = PROBLEMS["sparse-backprop"]
    point = {
        "epochs": 25,
        "optimizer.lr": 0.1,
        "sparsity.estimator": "grid",
        "sparsity.schedule": "constant",
        "sparsity.p0": 0.5,
        "sparsity.layers.profile": "uniform",
    }
    config = sparse_backprop_config(point)
    assert problem.true(point) == (true_accuracy(config, 25), true_kwh(config, 25))
    told = [problem.observed(point, seed) for seed in range(40)]
    assert len(set(told)) == 40
    assert np.mean(told, axis=0) == pytest.approx(problem.true(point), rel=0.005)
    assert PROBLEMS["ZDT1"].observed(point_of_zeros := {f"x{i}": 0.0 for i in range(6)}, 1) == (
        PROBLEMS["ZDT1"].true(point_of_zeros)
    )


class Recorder:
    """A search that notes what it is asked and told."""

    def __init__(self):
        self.events, self.asked = [], 0

    def ask(self):
        self.events.append(("ask", self.asked))
        self.asked += 1
        return self.asked - 1, point(self.asked / 100, 0, 0, 0, 0, 0)

    def tell(self, handle, observed):
        self.events.append(("tell", handle))


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 6), st.integers(1, 20), st.integers(0, 2**31))
def test_workers_are_busy_until_the_end_and_each_trial_ends_once(workers, evaluations, seed):
    search = Recorder()
    values = simulate(PROBLEMS["ZDT1"], search, evaluations, workers, seed)
    running, most = set(), 0
    for kind, number in search.events:
        assert (number in running) == (kind == "tell")
        running ^= {number}
        most = max(most, len(running))
        if kind == "ask":  # it is asked as soon as a worker is free, and only then
            assert len(running) <= workers
    told = [number for kind, number in search.events if kind == "tell"]
    assert not running and sorted(told) == list(range(evaluations)) and most == min(workers, evaluations)
    assert [value[0] for value in values] == [(number + 1) / 100 for number in told]  # in the order of their ends


def test_runs_end_in_another_order_than_they_began():
    search = Recorder()
    simulate(PROBLEMS["ZDT1"], search, 40, 4, 0)
    told = [number for kind, number in search.events if kind == "tell"]
    assert told != sorted(told)


@pytest.mark.parametrize("name", ["random", "Optuna NSGA-II", "Optuna TPE"])
def test_a_run_has_one_result_by_its_seed(name):
    problem = PROBLEMS["sparse-backprop"]
    first, second, other = (simulate(problem, PEERS[name].make(problem, seed), 12, 4, seed) for seed in (3, 3, 4))
    assert first == second != other


def test_the_benchmark_goes_on_where_it_was(tmp_path, capsys):
    arguments = ["--problems", "ZDT2", "sparse-backprop", "--peers", "random", "Optuna TPE", "--seeds", "2"]
    arguments += ["--evaluations", "26", "--processes", "1", "--work", str(tmp_path), "-o", str(tmp_path / "t.csv")]
    main(arguments)
    log = (tmp_path / "runs.jsonl").read_text()
    assert len(log.splitlines()) == 8 and "ZDT2" in capsys.readouterr().out
    found = pd.read_csv(tmp_path / "t.csv")
    assert list(found["evaluations"]) == [25] * 4 and (found["seeds"] == 2).all() and (found["share"] < 1).all()
    assert found["versions"].str.contains("optuna").all()
    (tmp_path / "runs.jsonl").write_text("".join(log.splitlines(keepends=True)[:-2]))  # two runs are lost
    main(arguments)
    again = (tmp_path / "runs.jsonl").read_text()
    assert len(again.splitlines()) == 8
    assert [json.loads(line)["values"] for line in sorted(again.splitlines())] == [
        json.loads(line)["values"] for line in sorted(log.splitlines())
    ]
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / "t.csv").drop(columns="seconds"), found.drop(columns="seconds")
    )


def test_a_longer_run_of_the_log_serves_a_shorter_one(tmp_path):
    log = tmp_path / "runs.jsonl"
    long = run(log, "ZDT1", "random", 12, 4, 0)
    assert run(log, "ZDT1", "random", 8, 4, 0).values == long.values[:8]
    assert len(log.read_text().splitlines()) == 1
    run(log, "ZDT1", "random", 13, 4, 0)
    assert len(log.read_text().splitlines()) == 2


def test_a_peer_that_is_not_installed_is_left_out_with_a_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(PEERS, "Ax", Peer(PEERS["Ax"].make, "no-such-package"))
    arguments = ["--problems", "ZDT1", "--peers", "random", "Ax", "--seeds", "1", "--evaluations", "25"]
    main([*arguments, "--processes", "1", "--work", str(tmp_path), "-o", str(tmp_path / "t.csv")])
    assert "left out: Ax: no-such-package is not installed" in capsys.readouterr().err
    assert set(pd.read_csv(tmp_path / "t.csv")["search"]) == {"random"}


def test_the_table_has_mean_error_and_share():
    problem = PROBLEMS["ZDT1"]

    runs = {("ZDT1", "random", seed): Run([(0.0, value), (1.0, 5.0)], 2.0) for seed, value in enumerate((2.5, 4.5))}
    found = table(runs, [1, 2, 3])
    assert list(found["evaluations"]) == [1, 2]  # nobody got as far as 3
    assert found["hypervolume"][0] == pytest.approx((1.1 * 3 + 1.1 * 1) / 2)
    assert found["error"][0] == pytest.approx(1.1)
    assert found["share"][0] == pytest.approx(2.2 / problem.maximum)
    assert "38.5 ±19.2" in text(found)


def test_the_terminal_says_where_a_number_has_fewer_seeds():
    runs = {("ZDT1", "random", seed): Run([(0.5, 3.0), (0.4, 2.0)][: 1 + (seed == 0)], 1.0) for seed in range(3)}
    shown = text(table(runs, [1, 2]))
    assert "3 seeds" in shown and shown.count("(1)") == 1
