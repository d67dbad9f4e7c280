import json
import re
import socket
import sys

import pytest

from sbp_tune.errors import InputError, StorageError
from sbp_tune.study.storage import (
    attempts,
    check_directory,
    create_study,
    drop_study,
    mend,
    number_of,
    open_study,
    put_back,
    set_attribute,
)
from sbp_tune.study.storage_url import database_url

OBJECTIVES = {"val_accuracy": "max", "kwh": "min"}


@pytest.mark.parametrize("name", ["plain", "with space", "a?b", "a#b", "a%20b", "größe"])
def test_any_folder_name_holds_its_own_storage(tmp_path, name):
    (tmp_path / name).mkdir()
    create_study(tmp_path / name, "demo", OBJECTIVES, {"versions": {"torch": "2"}})
    assert (tmp_path / name / "study.db").is_file() and len(list(tmp_path.iterdir())) == 1
    study = open_study(tmp_path / name)
    assert study.study_name == "demo" and study.metric_names == list(OBJECTIVES)
    assert study.user_attrs["versions"] == {"torch": "2"}


def test_a_trial_is_found_by_any_of_its_attempts(tmp_path):
    study = create_study(tmp_path, "demo", OBJECTIVES, {})
    for ids in (["a"], ["b", "c"]):
        set_attribute(study, study.ask().number, "attempts", ids)
    assert [number_of(study, trial_id) for trial_id in "abcd"] == [0, 1, 1, None]
    assert attempts(study.get_trials()[1]) == ["b", "c"]


@pytest.fixture
def directory(tmp_path):
    """directory(storage, name) -> a study directory that has only its study.yaml."""

    def make(storage, name="demo"):
        path = tmp_path / name
        path.mkdir()
        (path / "study.yaml").write_text(json.dumps({"name": name, "search": {"storage": storage}}))
        return path

    return make


@pytest.mark.parametrize(("storage", "file"), [("sqlite", "study.db"), ("journal", "study.journal")])
def test_a_file_of_the_study_directory_goes_where_it_goes(directory, tmp_path, storage, file):
    path = directory(storage)
    study = create_study(path, "demo", OBJECTIVES, {"versions": {"torch": "2"}})
    study.tell(study.ask(), [0.5, 1.0])
    moved = path.rename(tmp_path / "moved")
    assert sorted(found.name for found in moved.iterdir()) == [file, "study.yaml"]
    again = open_study(moved)
    assert again.study_name == "demo" and again.metric_names == list(OBJECTIVES)
    assert [trial.values for trial in again.get_trials()] == [[0.5, 1.0]]


@pytest.mark.parametrize(("storage", "file"), [("sqlite", "study.db"), ("journal", "study.journal")])
def test_a_storage_that_is_gone_is_not_made_anew(directory, storage, file):
    path = directory(storage)
    create_study(path, "demo", OBJECTIVES, {})
    (path / file).unlink()
    with pytest.raises(StorageError, match=f"{path / file}: the storage of this study is gone"):
        open_study(path)
    with pytest.raises(InputError, match=f"not a study directory: it has no {file}"):
        check_directory(path)
    assert not (path / file).exists()


def test_a_file_that_is_no_database_is_one_line(directory):
    path = directory("sqlite")
    (path / "study.db").write_text("somebody's" * 1000)
    with pytest.raises(StorageError, match=f"{path / 'study.db'}: file is not a database"):
        open_study(path)


def test_a_journal_cut_at_any_byte_goes_on_after_mending(directory):
    path = directory("journal")
    study = create_study(path, "demo", OBJECTIVES, {})
    study.tell(study.ask(), [0.5, 1.0])
    whole = (path / "study.journal").read_bytes()
    first = whole.index(b"\n", whole.index(b"metric_names")) + 1
    for cut in range(first, len(whole) + 1, 7):
        (path / "study.journal").write_bytes(whole[:cut])
        mend(path)
        open_study(path).tell(open_study(path).ask(), [0.1, 2.0])
        assert [0.1, 2.0] in [trial.values for trial in open_study(path).get_trials()]


def test_two_studies_in_one_database_do_not_meet(directory, tmp_path):
    shared = f"sqlite:///{tmp_path / 'shared.db'}"
    paths = [directory(shared, name) for name in ("one", "two")]
    for value, path in enumerate(paths):
        study = create_study(path, path.name, OBJECTIVES, {})
        study.tell(study.ask(), [0.5, value])
    assert [open_study(path).get_trials()[0].values for path in paths] == [[0.5, 0], [0.5, 1]]
    with pytest.raises(InputError, match="has a study named one already; give another --name"):
        create_study(paths[0], "one", OBJECTIVES, {})
    drop_study(open_study(paths[0]))
    with pytest.raises(StorageError, match="the study one is not in it"):
        open_study(paths[0])
    assert open_study(paths[1]).study_name == "two"


def test_a_trial_that_is_put_back_is_asked_for_next_as_it_is(directory):
    path = directory("sqlite")
    study = create_study(path, "demo", OBJECTIVES, {})
    trial = study.ask()
    value = trial.suggest_float("p0", 0.1, 1.0)
    trial.set_user_attr("config", {"p0": value})
    put_back(study, 0)
    again = open_study(path).ask()
    assert again.number == 0 and again.suggest_float("p0", 0.1, 1.0) == value
    assert open_study(path).get_trials()[0].user_attrs["config"] == {"p0": value}


def test_a_server_that_nobody_runs_is_one_line(directory):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    for kind in ("postgresql", "mysql"):
        pytest.importorskip({"postgresql": "psycopg", "mysql": "pymysql"}[kind])
        url = f"{kind}://somebody@127.0.0.1:{port}/trials"
        with pytest.raises(StorageError, match=rf"^{re.escape(url)}: .*refused") as raised:
            open_study(directory(url, kind))
        assert "\n" not in str(raised.value)


def test_a_driver_that_is_not_installed(directory, monkeypatch):
    monkeypatch.setitem(sys.modules, "pymysql", None)
    with pytest.raises(InputError, match=r"its driver is missing .*pip install 'sbp-tune\[mysql\]'"):
        open_study(directory("mysql://somebody@localhost/trials"))


@pytest.mark.parametrize(
    "good",
    [
        *("sqlite", "journal", "${DATABASE}", "sqlite:////data/trials.db", "postgresql://host/trials"),
        *("postgresql+psycopg2://u:${PASSWORD}@host:5432/trials", "mysql://u:${PASSWORD}@host/trials", "mariadb://h/t"),
    ],
)
def test_storages_that_a_study_file_may_name(good, make_study):
    study = make_study(("search: {trials: 6}", f"search: {{trials: 6, storage: '{good}'}}"))
    assert study.document["search"]["storage"] == good


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        ("postgres", r"found 'postgres'; allowed: sqlite, journal, or the URL"),
        ("oracle://u:secret@host/trials", r"found 'oracle://...@host/trials'; allowed"),
        ("sqlite:///trials.db", "found 'sqlite:///trials.db'; a database file needs an absolute path"),
        ("mysql://u:secret@host/trials", r"holds a password, .* write \$\{NAME\} in its place"),
        ("postgresql://host/trials?password=secret", "holds a password"),
        ("postgresql://u:secret@host:port/trials", r"found 'postgresql://...@host:port/trials'"),
    ],
)
def test_storages_that_it_may_not(bad, problem, make_study):
    with pytest.raises(InputError, match=f"demo.yaml: search.storage: {problem}") as raised:
        make_study(("search: {trials: 6}", f"search: {{trials: 6, storage: '{bad}'}}"))
    assert "secret" not in str(raised.value)


def test_variables_of_the_environment_are_filled_in_by_parts(monkeypatch):
    monkeypatch.setenv("PASSWORD", "p@ss/w:rd?#%41")
    url = database_url("postgresql://me:${PASSWORD}@host/trials")
    assert url.password == "p@ss/w:rd?#%41" and url.drivername == "postgresql+psycopg" and url.host == "host"
    monkeypatch.setenv("DATABASE", "mysql://me:clear@host/trials")
    assert database_url("${DATABASE}").drivername == "mysql+pymysql" and database_url("${DATABASE}").password == "clear"
    with pytest.raises(InputError, match="the environment variable NOWHERE, which it names, is not set"):
        database_url("mysql://me:${NOWHERE}@host/trials")
