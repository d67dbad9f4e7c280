"""What every figure must stand: studies in every state, and text that would be markup."""

import json

import numpy as np
import pandas as pd
import pytest

from analysis import figures
from sbp_tune.study.results import METRICS

NAN = float("nan")
OF_A_STUDY = [
    name for name in figures.__all__ if name.startswith("plot_") and name not in ("plot_confusion", "plot_attainment")
]
DRAW = {name: getattr(figures, name) for name in OF_A_STUDY} | {
    "plot_attainment": lambda study: figures.plot_attainment([study])
}


def states_of_studies(build):
    unfinished = [build.trial(state=state, kwh=1.0) for state in ("running", "interrupted", "stopped", "failed")]
    return {
        "no trial": [],
        "none finished": [*unfinished, build.trial(state="failed", error=None), build.trial(), build.trial("dense")],
        "one trial, others run": [*unfinished, build.sparse(0.9, 1.0)],
        "no baseline": [build.sparse(0.9, 1.0), build.sparse(0.8, 0.5)],
        "only baselines": [build.control(0.9, 1.0)],
        "no accuracy, no energy": [build.sparse(NAN, 1.0), build.sparse(0.9, NAN)],
        "duplicates": [build.control(0.9, 1.0), *[build.sparse(0.9, 1.0, sparsity__p0=0.5)] * 3],
        "all dominated": [build.control(0.9, 1.0), build.sparse(0.8, 2.0, tflop=1.0, epoch=1.0)],
    }


@pytest.mark.parametrize("name", DRAW)
def test_every_state_of_a_study_has_every_figure(build, name):
    for state, trials in states_of_studies(build).items():
        three = {"val_accuracy": "max", "kwh": "min", "tflop": "min"} if state == "all dominated" else None
        figure = DRAW[name](build.study(*trials, objectives=three))
        assert figure.data or figure.layout.annotations, state
        # what is not there is a gap, which JSON calls null
        json.loads(figure.to_json(), parse_constant=lambda word, state=state: pytest.fail(f"{state}: {word}"))


@pytest.mark.parametrize("name", DRAW)
def test_markup_in_a_study_stays_text(build, name):
    evil = "</script><img src=x onerror=alert(1)>%{x}"
    common = {"data__name": evil, "model__name": evil, "tflop": 1.0, "epoch": 1.0, "device": evil, "kwh_cpu": 1.0}
    study = build.study(
        build.control(0.4, 2.0, **common),
        *(
            build.trial(
                evil if number % 2 else "mask", val_accuracy=0.3 + number / 100, kwh=1.0 + number,
                data__root=evil + "ab"[number % 2],
                sparsity__p0=0.1 + number / 50, sparsity__layers__profile=evil, **common,
            )
            for number in range(25)
        ),
        name=evil,
    )  # fmt: skip
    study.study["config"] = {"sparsity": {"estimator": {"choice": ["mask", "grid"]}, "p0": {"uniform": [0.1, 1.0]}}}
    rows = [{"trial": trial, "epoch": 1.0, "val_accuracy": 0.5, "kwh": 1.0} for trial in study.trials["trial"]]
    object.__setattr__(study, "epochs", pd.DataFrame(rows, columns=["trial", *METRICS]).astype(float))
    if name == "plot_keep_fractions":  # a config of this kind trains nothing
        study = build.study(build.sparse(0.5, 1.0), name=evil)
    assert "<img" not in json.dumps(DRAW[name](study).to_plotly_json(), default=_plain)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["png", "svg"])
def test_a_figure_is_a_picture_file_too(build, tmp_path, form):
    pytest.importorskip("kaleido", reason="the extra notebook has kaleido")
    study = build.study(build.control(0.8, 1.0), build.sparse(0.9, 2.0))
    try:
        figures.plot_front(study).write_image(tmp_path / f"front.{form}")
    except RuntimeError as error:
        if "Chrome" not in str(error):
            raise
        pytest.skip("kaleido draws with Chrome, and there is none")
    beginning = (tmp_path / f"front.{form}").read_bytes()[:8]
    assert beginning == b"\x89PNG\r\n\x1a\n" if form == "png" else beginning.startswith(b"<svg")


def _plain(value):
    return value.tolist() if isinstance(value, np.ndarray) else str(value)


def test_points_carry_the_number_of_their_trial(build):
    study = build.study(
        build.control(0.8, 1.0, tflop=4.0, epoch=2.0, sparsity__p0=1.0),
        build.sparse(0.9, 2.0, tflop=3.0, epoch=2.0, sparsity__p0=0.5),
        build.sparse(0.7, 0.5, tflop=2.0, epoch=2.0, sparsity__p0=0.3),
    )
    for name in ("plot_front", "plot_parallel", "plot_slices", "plot_flop_saving"):
        numbers = {int(number) for trace in DRAW[name](study).data for number in trace.customdata or []}
        assert {1, 2} <= numbers, name
