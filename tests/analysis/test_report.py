import math
import re
import shutil
import subprocess
import sys

import pytest

from analysis.report import write_report

NAN = math.nan
HEADLESS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=5000", "--dump-dom"),
]
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
    for heading in ("Accuracy against energy", "Pareto front", "Dense controls", "Energy bill", "Failed trials"):
        assert f"<h2>{heading}</h2>" in text
    assert "5 trials: 3 complete, 1 stopped early, 1 failed." in text
    assert "1 sparse trial lies above the dense control curve." in text
    assert '<td class="number">88.00 %</td><td class="number">20.0 mWh</td>' in text
    assert "ValueError: &lt;script&gt;" in text
    assert "second line" in text
    assert "torch" in text


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


def test_the_report_draws_in_a_browser_without_a_network(study, tmp_path):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs chromium to draw the report")
    report = write_report(study, tmp_path / "report.html")
    done = subprocess.run(
        [chromium, *HEADLESS, f"--user-data-dir={tmp_path / 'profile'}", report.as_uri()],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    page = body(done.stdout)
    assert page.count('class="main-svg"') >= 2
    assert len(re.findall(r'<path class="point[ \"]', page)) >= 5
    assert 'class="legendtext"' in page
    assert "batch_slice" in page
    assert EVIL not in page.replace("&lt;", "\0")
