import ast
import json
import math
import runpy
from dataclasses import replace

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis import provenance as module
from analysis.confirmed import MEASURED
from analysis.export import export_config, json_text
from sbp_tune.config import check_config, load_config
from sbp_tune.errors import InputError
from sbp_tune.files import parse_yaml

NAN = math.nan
FORMS = ("best.yaml", "best.json", "best.py")


@pytest.fixture
def trained(build):
    values = {"val_accuracy": 0.9, "kwh": 1.23e-5, "kwh_measured_share": 0.5, "co2_kg": 4e-6, "device": "cpu"}
    sources = {"kwh_cpu_source": "counter", "kwh_ram_source": "model"}
    config = {"optimizer__lr": 1e-5, "optimizer__betas": [0.5, 0.75], "epochs": 3, "sparsity__p0": 0.3, "seed": 5}
    return build.trial("mask", **values, **sources, **config)


def config_in(path):
    """The config that a file of any form holds."""
    if path.suffix != ".py":
        return load_config(path)
    assigned = next(node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Assign))
    return check_config(ast.literal_eval(assigned.value), source="script")


@pytest.mark.parametrize("name", FORMS)
def test_an_exported_config_is_the_trial_again(build, trained, tmp_path, name):
    study = build.study(trained)
    output = export_config(study, "trial=0", tmp_path / "sub" / name)
    assert config_in(output) == check_config(study.config_of(0), source="trial 0")


def test_the_header_says_where_it_is_from(build, trained, tmp_path):
    study = build.study(trained)
    study.versions["git"] = "0123abc dirty"
    text = export_config(study, "trial=0", tmp_path / "best.yaml").read_text()
    assert text.startswith(f"# sbp-tune train {tmp_path / 'best.yaml'}\n#\n# study: demo\n")
    for line in (
        "trial: 0 (t0), picked by trial=0",
        "seed: 5",
        "val. accuracy: 90.00 %",
        "energy: 12.3 mWh",
        "CO2eq: 4.00 mg",
        "confirmed: no; one run with one seed",
        "energy source: CPU measured (RAPL), RAM modelled; 50 % measured",
        "device: cpu",
        "versions: sbp-tune 0.1.0, torch 2.11.0",
        "git revision: 0123abc dirty",
    ):
        assert f"\n# {line}\n" in text
    script = export_config(study, "trial=0", tmp_path / "best.py").read_text()
    headers = [file.splitlines()[1:14] for file in (script, text)]
    assert headers[0][:12] == headers[1][:12]
    assert all(header[12].startswith("# exported: 20") for header in headers)  # perhaps a second apart


def test_json_holds_it_as_data(build, trained, tmp_path):
    found = json.loads(export_config(build.study(trained), "knee", tmp_path / "best.json").read_text())["provenance"]
    assert (found["study"], found["trial"], found["trial_id"], found["picked_by"]) == ("demo", 0, "t0", "knee")
    assert found["seed"] == 5 and found["device"] == "cpu" and found["git"] is None and found["confirmed"] is None
    assert found["metrics"]["kwh"] == 1.23e-5 and found["metrics"]["tflop"] is None
    assert found["energy_source"] == {"cpu": "counter", "ram": "model"}
    assert found["versions"] == {"sbp-tune": "0.1.0", "torch": "2.11.0"}


def test_what_is_confirmed_comes_with_its_intervals_and_seeds(build, trained, tmp_path, monkeypatch):
    """Of a trial, and of another with the same config but for the seed, which has the same repeats."""
    twin = trained | {"config": trained["config"] | {"seed": 6}}
    study = build.study(build.control(0.9, 2e-5, epochs=3), trained, twin, build.sparse(0.2, 1e-5))
    rows = [
        {"point": point, "seed": seed, "state": state, "gpu_uuid": None, **dict.fromkeys(MEASURED, NAN)}
        | {"test_accuracy": accuracy, "val_accuracy": accuracy, "kwh": kwh, "train_time_s": 1.0}
        for point, kwh, shift in ((0, 2e-5, 0.0), (1, 1e-5, 0.01))
        for seed, accuracy, state in (
            (11, 0.80 + shift, "complete"),
            (12, 0.84 + shift, "complete"),
            (13, NAN, "failed"),
        )
    ]
    monkeypatch.setattr(module, "confirmed_runs", lambda _: pd.DataFrame(rows))
    found = json.loads(export_config(study, "trial=2", tmp_path / "best.json").read_text())["provenance"]
    assert found["confirmed"]["point"] == 1 and found["confirmed"]["seeds"] == [11, 12]
    accuracy = found["confirmed"]["metrics"]["test_accuracy"]
    assert accuracy["mean"] == pytest.approx(0.83) and accuracy["se"] == pytest.approx(0.02)
    assert accuracy["high"] - accuracy["mean"] == pytest.approx(0.02 * 12.7062, rel=1e-4)  # t, 1 degree of freedom
    assert found["confirmed"]["metrics"]["kwh_change"]["mean"] == pytest.approx(-0.5)
    text = export_config(study, "trial=1", tmp_path / "best.yaml").read_text()
    for line in (
        "confirmed test accuracy: 83.00 ± 25.41 %",
        "confirmed energy: 10.0 mWh ± 0.0 %",
        "confirmed lead over dense of equal energy: +1.00 (+1.00 to +1.00) pp",
        "confirmed energy vs. full dense: -50.0 % (-50.0 to -50.0)",
        "confirmed: above; fresh seeds 11, 12; ± and brackets: 95 % intervals",
    ):
        assert f"\n# {line}\n" in text
    assert "confirmed: no" in export_config(study, "trial=3", tmp_path / "best.yaml").read_text()


def test_the_form_follows_the_name_unless_it_is_named(build, trained, tmp_path):
    study = build.study(trained)
    json.loads(export_config(study, "knee", tmp_path / "best.yaml", "json").read_text())
    assert export_config(study, "knee", tmp_path / "best.txt").read_text().startswith("# sbp-tune train ")
    with pytest.raises(InputError, match="as: found 'toml'; possible: yaml, python, json"):
        export_config(study, "knee", tmp_path / "best.toml", "toml")


def test_an_exported_file_may_be_replaced(build, trained, tmp_path):
    output = tmp_path / "best.yaml"
    output.write_text("old")
    export_config(build.study(trained), "knee", output)
    assert load_config(output).epochs == 3
    assert list(tmp_path.iterdir()) == [output]


@pytest.mark.parametrize("name", FORMS)
def test_names_cannot_break_out_of_the_comments(build, trained, tmp_path, name):
    hostile = 'a\nepochs: 99\r\x85x: 1\u2028y: 2\x00\x1b[31m\ud800\ufeff"""{}'
    changed = trained | {"device": hostile.replace("\ud800", "")}
    study = replace(build.study(changed, name=hostile), versions={"torch\n": "2\nimport os"})
    output = export_config(study, "knee", tmp_path / name)
    assert config_in(output).epochs == 3
    assert 'a epochs: 99 x: 1 y: 2 [31m """{}' in output.read_text().replace("\\", "")


@given(st.dictionaries(st.text(), st.text() | st.floats(allow_nan=False, allow_infinity=False) | st.none()))
def test_json_is_yaml_too(values):
    text = json_text({"values": values})
    assert json.loads(text)["values"] == values
    assert parse_yaml(text, "x")["values"] == values


def test_a_config_that_is_none_of_ours_is_an_input_error(build, tmp_path):
    study = build.study(build.sparse(0.9, 1.0, wheels=4))
    with pytest.raises(InputError, match=r"results/demo: trial 0: wheels: unknown key"):
        export_config(study, "knee", tmp_path / "best.yaml")
    assert not list(tmp_path.iterdir())


def test_a_script_trains_and_goes_on_where_it_was_interrupted(build, tmp_path, monkeypatch, capsys):
    """For real, through the public API; run again, it finds its epochs done."""
    config = {"data__subset": 64, "model__args__width": 4, "epochs": 2, "device": "cpu", "cpu_threads": 1}
    script = export_config(
        build.study(build.trial("mask", val_accuracy=0.5, kwh=1.0, **config)), "knee", tmp_path / "mine.py"
    )
    monkeypatch.chdir(tmp_path)
    for lines in (3, 1):
        runpy.run_path(str(script), run_name="__main__")
        assert len(capsys.readouterr().out.splitlines()) == lines
    assert (tmp_path / "results" / "train" / "mine" / "model.pt").is_file()
