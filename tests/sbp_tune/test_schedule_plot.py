import pytest
from typer.testing import CliRunner

from sbp_tune.cli import app
from sbp_tune.config import config_from_text
from sbp_tune.schedule_plot import plot_schedule, schedule_info

CONFIG = """
epochs: 5
model: {name: resnet18, stem: cifar}
sparsity:
  estimator: batch_slice
  schedule: linear
  p0: 0.9
  p_min: 0.1
  layers: {profile: ramp, slope: 0.5, overrides: {layer4.0.*: 0.2}}
"""


def test_info_has_every_layer_and_epoch():
    info = schedule_info(config_from_text(CONFIG))
    assert info.keep == pytest.approx([0.9, 0.7, 0.5, 0.3, 0.1])
    of = dict(zip(info.layers, info.keep_of_layer, strict=True))
    assert len(of) == 21 and set(of["conv1"]) == set(of["fc"]) == {1.0}
    assert set(of["layer4.0.conv1"]) == {0.2} and of["layer1.0.conv1"][2] == pytest.approx(0.25)


def test_the_flops_profile_knows_the_network():
    info = schedule_info(config_from_text(CONFIG.replace("profile: ramp, slope: 0.5", "profile: flops")))
    of = dict(zip(info.layers, info.keep_of_layer, strict=True))
    assert of["layer1.0.conv1"][2] < 0.5  # the dense layers keep all of theirs


def test_the_figure_shows_the_curve_and_the_layers():
    info = schedule_info(config_from_text(CONFIG))
    curve, heat = plot_schedule(info).data
    assert list(curve.y) == info.keep and list(heat.y) == info.layers


def test_the_command_writes_html_and_refuses_what_it_cannot(tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text("epochs: 3\nsparsity: {estimator: mask, p0: 0.5}\n")
    result = CliRunner().invoke(app, ["plot-schedule", str(config), "-o", str(tmp_path / "plot.html")])
    assert result.exit_code == 0 and "plotly" in (tmp_path / "plot.html").read_text()
    result = CliRunner().invoke(app, ["plot-schedule", str(config), "-o", str(tmp_path / "plot.gif")])
    assert result.exit_code == 2 and "ends in .html or .png" in result.output
