"""The notebooks run from top to bottom on the studies beside them, and are committed without what they show."""

import os
import re
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbclient import NotebookClient

from analysis import load_study, trial_front
from sbp_tune.study.pack import pack
from sbp_tune.study.results import confirmation_path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "analysis" / "notebooks"
NOTEBOOKS = sorted(path.name for path in FOLDER.glob("*.ipynb"))
STUDIES = sorted(path.parent for path in (FOLDER / "studies").glob("*/study.yaml"))
ABSOLUTE_PATH = re.compile(rb"[\"' :(]/\w+/")


def files_of(folder):
    """Contents of all files under a folder, by relative path."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_there_are_four():
    starts = ("01_inspect_a_front", "02_compare_studies", "03_energy_bill", "04_choose_and_export")
    assert [f"{start}.ipynb" for start in starts] == NOTEBOOKS


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_no_output_is_committed(name):
    for cell in nbformat.read(FOLDER / name, as_version=4).cells:
        assert not cell.get("outputs") and cell.get("execution_count") is None and not cell.metadata
    nbformat.validate(nbformat.read(FOLDER / name, as_version=4))


@pytest.mark.parametrize(
    "name", [NOTEBOOKS[0], *(pytest.param(name, marks=pytest.mark.slow) for name in NOTEBOOKS[1:])]
)
def test_it_runs_from_top_to_bottom(name, monkeypatch, tmp_path):
    # This checkout, also where another one is installed.
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    notebook, before = nbformat.read(FOLDER / name, as_version=4), files_of(FOLDER)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(FOLDER)}}).execute()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    said = [output for cell in code for output in cell.outputs]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    stderr = "".join(output.text for output in said if output.output_type == "stream" and output.name == "stderr")
    assert not stderr or "TqdmWarning" in stderr  # of Optuna's progress bar, where ipywidgets is not installed
    assert any("application/vnd.plotly.v1+json" in output.get("data", {}) for output in said) or name[:2] == "04"
    assert files_of(FOLDER) == before


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.name)
def test_the_studies_are_small_finished_and_name_no_machine(path, tmp_path):
    files = files_of(path)
    assert sum(map(len, files.values())) < 1.5e6
    for name, held in files.items():
        assert not ABSOLUTE_PATH.search(held) and b"hostname" not in held, name
    study = load_study(path)
    assert set(study.trials["state"]) == {"complete"} and len(trial_front(study)) > 1
    assert study.simulation is None
    again = pack(path, tmp_path / "again")
    pd.testing.assert_frame_equal(load_study(again).trials, study.trials)
    assert set(files_of(again)) == set(files)


def test_one_study_is_confirmed():
    confirmed = [path for path in STUDIES if confirmation_path(path).is_dir()]
    assert [path.name for path in STUDIES] == ["digits-tpe", "quickstart"]
    assert [path.name for path in confirmed] == ["digits-tpe"]
    assert len(load_study(confirmed[0]).versions["git"]) == 40
