import json
import math
import re
import subprocess
import sys
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from analysis import report
from analysis.report import write_comparison, write_report
from analysis.report.drawn import drawn_trials
from sbp_tune.cli import app
from sbp_tune.errors import InputError
from sbp_tune.study.storage import create_study

NAN = math.nan
EVIL = "<script>alert('x')</script>"


def written(study, tmp_path):
    return write_report(study, tmp_path / "report.html").read_text(encoding="utf-8")


def body(document):
    """The page without Plotly's own script, whose text is not ours."""
    return document[document.index("<body>") :]


@pytest.fixture
def study(build):
    energy = {"kwh_cpu": 8e-6, "kwh_ram": 2e-6, "kwh_measured_share": 0.8, "co2_kg": 3e-6, "device": "cpu"}
    return build.study(
        build.control(0.8, 1e-5, epochs=5, **energy),
        build.control(0.9, 3e-5, epochs=10, **energy),
        build.sparse(0.88, 2e-5, epochs=5, sparsity__p0=0.5, **energy),
        build.trial("mask", state="stopped", val_accuracy=0.5, kwh=1e-6, epochs=5),
        build.trial("mask", state="failed", error=f"ValueError: {EVIL}\nsecond line", epochs=5),
        name=f"demo {EVIL}",
    )


def test_report_holds_the_sections_and_numbers(study, tmp_path):
    text = body(written(study, tmp_path))
    for heading in (
        "Take",
        "Accuracy against energy",
        "Pareto front",
        "Dense controls",
        "Energy bill",
        "Failures",
    ):
        assert f"<h2>{heading}</h2>" in text
    assert "5 trials: 3 complete, 1 stopped early, 1 failed." in text
    assert "1 sparse trial lies above the dense control curve." in text
    assert '<td class="number">88.00 %</td><td class="number">20.0 mWh</td>' in text
    assert "ValueError: &lt;script&gt;" in text
    assert "second line" in text
    assert "torch" in text


def test_attempts_that_were_lost_and_machines_that_could_not_be_used_are_named(build, tmp_path):
    study = build.study(build.control(0.8, 1e-5, epochs=5), build.sparse(0.88, 2e-5, epochs=5))
    assert "Failures" not in body(written(study, tmp_path))
    lost = f"attempt 0: NodeDiedError: {EVIL}; attempt 1: epoch 3 took longer than 60 s: killed"
    trials = study.trials.assign(lost_attempts=[None, lost], attempts=[1, 3])
    refused = (f"node 10.0.0.7: No module named {EVIL}",)
    text = body(written(replace(study, trials=trials, refused_nodes=refused), tmp_path))
    assert "<h2>Failures</h2>" in text and EVIL not in text
    assert text.count("epoch 3 took longer than 60 s: killed") == 1
    assert "attempt 0: NodeDiedError: &lt;script&gt;" in text
    assert "node 10.0.0.7: No module named &lt;script&gt;" in text


def test_report_runs_no_text_of_the_study(study, tmp_path):
    document = written(study, tmp_path)
    assert EVIL not in document
    assert "&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;" in document
    assert "name: demo &lt;script&gt;" in document  # the study file


def test_report_loads_nothing_and_stays_small(study, tmp_path):
    document = written(study, tmp_path)
    assert not re.search(r"<(link|iframe|img|script [^>]*src)", body(document))
    assert "default-src 'none'" in document
    assert len(document.encode()) < 6e6
    assert document.count("plotly.js v") == 1


def states_of_studies(build):
    failed = build.trial(state="failed", error=None)
    return {
        "no trial": [],
        "one trial": [build.sparse(0.9, 1.0)],
        "all failed": [failed, failed],
        "only NaN": [build.trial(), build.trial("dense", kind="baseline")],
        "no baseline": [build.sparse(0.9, 1.0), build.sparse(0.8, 0.5)],
        "only baselines": [build.control(0.9, 1.0)],
        "running": [build.trial(state="running"), build.sparse(0.9, 1.0)],
        "no accuracy": [build.sparse(NAN, 1.0)],
        "no energy": [build.sparse(0.9, NAN)],
    }


@pytest.mark.parametrize("objectives", [{"val_accuracy": "max"}, {"val_accuracy": "max", "kwh": "min", "tflop": "min"}])
def test_every_state_of_a_study_has_a_report(build, tmp_path, objectives):
    for trials in states_of_studies(build).values():
        assert "<h2>Energy bill</h2>" in body(written(build.study(*trials, objectives=objectives), tmp_path))


def test_text_that_cannot_be_encoded_does_not_cost_the_report(build, tmp_path):
    study = build.study(build.trial(state="failed"), name="half a character: \ud800")
    assert "<h1>half a character:</h1>" in written(study, tmp_path)


def test_importing_analysis_loads_neither_plotly_nor_torch_nor_ray():
    code = (
        "import sys; import analysis; from analysis import load_study, pick_trial, write_report, plot_front;"
        "print([name for name in ('plotly', 'torch', 'ray') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_resolves():
    import analysis

    assert all(getattr(analysis, name) for name in analysis.__all__)
    assert set(analysis.__all__) <= set(dir(analysis))
    with pytest.raises(AttributeError, match="plot_everything"):
        _ = analysis.plot_everything


def test_no_text_ends_the_data_of_a_figure(build, tmp_path):
    evil = "</script><script>alert(1)</script><!--"
    study = build.study(build.control(0.9, 1.0), build.trial(evil, val_accuracy=0.95, kwh=0.5, model__name=evil))
    text = body(written(study, tmp_path))
    assert "alert(1)</script>" not in text and "<!--" not in text and "alert(1)" in text


def test_the_first_screen_answers(study, tmp_path):
    text = body(written(study, tmp_path))
    # dense training of 88 % costs 2.6 times 10 mWh, and of 20 mWh it has 85 %
    assert "batch_slice, p 0.5, 5 epochs (trial 2)" in text
    assert "23 % less energy than dense training of equal accuracy; 3.00 pp more accuracy" in text
    assert "It is less accurate than the best dense control by over a point." in text
    assert "Not confirmed: one run with one seed." in text and "--points trial=2 --seeds 3" in text
    assert "61.0 mWh for 5 trials." in text and "As much as 2.03 trainings of the dearest dense control" in text


def test_the_first_screen_says_where_nothing_is_gained(build, tmp_path):
    controls = [build.control(0.8, 1.0), build.control(0.9, 3.0)]
    text = body(written(build.study(*controls, build.sparse(0.7, 2.0)), tmp_path))
    assert "No sparse point lies above the dense control." in text and "Dense training (trial 1)" in text
    cheaper = build.study(*controls, build.control(0.895, 2.4), build.sparse(0.7, 2.0))
    text = body(written(cheaper, tmp_path))
    assert "This control uses 20 % less energy than the dearest one." in text
    text = body(written(build.study(build.sparse(0.7, 2.0)), tmp_path))
    assert "Nothing yet" in text and "No dense control is complete" in text


def test_figures_without_data_are_left_out_and_named(study, tmp_path):
    text = body(written(study, tmp_path))
    assert "<h3>Importance</h3>" not in text and "<h3>The front</h3>" in text
    assert "Figures left out for want of data: " in text and "Importance (" in text
    assert "could not be drawn" not in text.split("<script>")[0]


def test_a_broken_figure_is_named_logged_and_costs_no_other(study, tmp_path, monkeypatch, caplog):
    def broken(study):
        raise RuntimeError(f"no paint {EVIL}")

    monkeypatch.setattr(report.one_study, "plot_slices", broken)
    text = body(written(study, tmp_path))
    assert "This figure could not be drawn: RuntimeError: no paint &lt;script&gt;" in text
    assert "<h3>Training" not in text and "<h3>The front</h3>" in text
    assert "One value at a time could not be drawn" in caplog.text and "Traceback" in caplog.text


def test_a_trained_run_in_the_study_has_its_confusions(study, tmp_path):
    study = replace(study, path=tmp_path)
    (tmp_path / "best").mkdir()
    result = {"classes": ["cat", "dog"], "confusion": [[3, 1], [0, 4]]}
    (tmp_path / "best" / "result.json").write_text(json.dumps(result))
    text = body(written(study, tmp_path))
    assert "<h3>Confusions of best</h3>" in text and "the most frequent confusion is cat taken for dog (1 of 4)" in text


def test_constraints_are_told(build, tmp_path):
    study = build.study(build.control(0.9, 1.0), build.sparse(0.8, 0.5), build.sparse(0.8, 0.6))
    study.study["search"]["constraints"] = ["kwh <= 1"]
    study.trials["feasible"] = [True, False, None]
    text = body(written(study, tmp_path))
    assert "1 of 3 complete trials meets the study&#x27;s constraints (kwh &lt;= 1)" in text
    assert "Of 1 trial that is not known." in text


def test_a_huge_study_draws_a_sample_that_has_what_matters(build):
    controls = [build.control(0.5, 1.0), build.control(0.6, 3.0)]
    worse = [build.sparse(0.3, 2.0 + n / 100) for n in range(60)]
    study = build.study(*controls, *worse, build.sparse(0.7, 2.0))
    drawn = drawn_trials(study, None, most=20)
    assert len(drawn.trials) == 20 and {0, 1, 62} <= set(drawn.trials["trial"])
    assert drawn.trials["trial"].is_monotonic_increasing
    assert drawn_trials(study, None, most=20).trials.equals(drawn.trials)
    assert drawn_trials(study, None, most=63) is study


def test_several_studies_stand_side_by_side(build, tmp_path):
    def of(name, *kwh, device="cpu"):
        trials = [build.control(0.9, one, device=device, co2_kg=one) for one in kwh]
        sparse = build.sparse(0.9, 0.5, device=device, co2_kg=0.5)
        return replace(build.study(*trials, sparse, name=name), path=tmp_path / f"of-{name[:3]}")

    one, two, other = of("one", 1.0, 2.0), of("two <b>", 3.0), of("gpu", 1.0, device="T4")
    text = body(write_comparison([one, two], tmp_path / "both.html").read_text(encoding="utf-8"))
    assert "<h1>one · two &lt;b&gt;</h1>" in text and "<b>" not in text
    for title in ("The fronts", "Hypervolume of the fronts", "Attainment surfaces", "Accuracy, energy and time"):
        assert f"<h3>{title}</h3>" in text
    assert "Hypervolume at the end, from one reference point for all: one 100.0 % for 3.50 kWh; two" in text
    assert "are not comparable" not in text
    text = body(write_comparison([one, other], tmp_path / "both.html").read_text(encoding="utf-8"))
    assert "different types of device (one: cpu; gpu: T4). kWh of different device types are not comparable" in text
    two.study["config"] = {"epochs": 3}
    text = body(write_comparison([one, two], tmp_path / "both.html").read_text(encoding="utf-8"))
    assert "<h3>Attainment surfaces</h3>" not in text and "the studies search different spaces" in text
    with pytest.raises(InputError, match="more than once"):
        write_comparison([one, one], tmp_path / "both.html")


def test_studies_in_every_state_are_compared(build, tmp_path):
    states = states_of_studies(build).values()
    studies = [replace(build.study(*trials), path=tmp_path / str(n)) for n, trials in enumerate(states)]
    text = write_comparison(studies, tmp_path / "all.html").read_text(encoding="utf-8")
    assert text.count("<h2>Study demo") == len(studies) and "could not be drawn" not in body(text).split("<script>")[0]


def test_the_command_takes_one_study_or_several(tmp_path, monkeypatch):
    objectives = {"val_accuracy": "max", "kwh": "min"}
    for name in ("one", "two"):
        path = tmp_path / "results" / name
        path.mkdir(parents=True)
        (path / "study.yaml").write_text(f"name: {name}\nobjectives: {json.dumps(objectives)}\n")
        create_study(path, name, objectives, {}).ask()
    monkeypatch.chdir(tmp_path)
    run = CliRunner().invoke
    assert run(app, ["report", "one"]).stdout.strip() == "results/one/report.html"
    both = run(app, ["report", "one", "two"])
    assert both.exit_code == 0 and both.stdout.strip() == "report.html", both.output
    assert "<h1>one · two</h1>" in (tmp_path / "report.html").read_text(encoding="utf-8")
    twice = run(app, ["report", "one", "results/one"])
    assert twice.exit_code == 2 and twice.stderr.startswith("error: report: found results/one")
