"""Studies in a PostgreSQL and a MySQL server of the test's own, where their programs are installed."""

import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import pytest
from optuna.trial import TrialState
from sqlalchemy import create_engine, text
from typer.testing import CliRunner

from sbp_tune.cli import app
from sbp_tune.errors import InputError
from sbp_tune.files import parse_yaml, write_text_atomic, yaml_text
from sbp_tune.remote import Remote
from sbp_tune.study.file import Study
from sbp_tune.study.launch import _create
from sbp_tune.study.results import load_study
from sbp_tune.study.searcher import OptunaSearcher, enqueue_fixed_points
from sbp_tune.study.storage import create_study, open_study
from sbp_tune.study.storage_url import database_url
from sbp_tune.study.working import fetched

pytestmark = pytest.mark.slow

PASSWORD = "p@ss/w%rd:?#"  # every character that a URL would have to quote
DONE = {"val_accuracy": 0.9, "kwh": 1e-6, "fully_trained": True}

run = CliRunner().invoke


class Server:
    """A database server in a folder of its own, run as a user who may: neither of them runs as root."""

    def __init__(self, user, programs):
        self.folder = Path(tempfile.mkdtemp(prefix="sbp-tune-db-"))  # short: sockets have short names
        self.run_as = {}
        if os.getuid() == 0:
            account = pwd.getpwnam(user)
            self.run_as = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
            os.chown(self.folder, account.pw_uid, account.pw_gid)
        self.programs = programs
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.process = None

    def command(self, program, *arguments):
        return [self.programs[program], *map(str, arguments)]

    def call(self, program, *arguments):
        command = self.command(program, *arguments)
        subprocess.run(command, check=True, capture_output=True, cwd=self.folder, text=True, **self.run_as)

    def start(self):
        log = (self.folder / "log").open("ab")
        self.process = subprocess.Popen(self.serve(), cwd=self.folder, stdout=log, stderr=log, **self.run_as)
        for _ in range(600):
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                assert self.process.poll() is None, (self.folder / "log").read_text()
                time.sleep(0.1)
        pytest.fail((self.folder / "log").read_text())

    def stop(self):
        if self.process is not None:
            self.process.send_signal(self.ending)
            self.process.wait()
            self.process = None

    def start_again(self):
        self.start()
        self.execute("SELECT 1", "mysql" if self.scheme == "mysql" else "postgres")

    def end(self):
        self.stop()
        shutil.rmtree(self.folder)


class Postgres(Server):
    scheme, user_name, ending = "postgresql", "postgres", signal.SIGINT  # does not wait for its clients

    @staticmethod
    def found():
        folder = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)
        return {name: shutil.which(name, path=folder) or shutil.which(name) for name in ("initdb", "postgres")}

    def set_up(self):
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        self.call("initdb", "-D", "data", "-U", "sbp", "--auth=scram-sha-256", f"--pwfile={secret}", "--no-sync")
        self.start()

    def serve(self):
        return self.command("postgres", "-D", "data", "-p", self.port, "-c", "fsync=off", "-k", self.folder)

    def create(self, name):
        self.execute(f"CREATE DATABASE {name}", "postgres")

    def execute(self, statement, database):
        engine = create_engine(database_url(self.url(database)), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(statement))
        engine.dispose()

    def url(self, database, host="127.0.0.1"):
        return f"{self.scheme}://sbp:${{SBP_TEST_PASSWORD}}@{host}:{self.port}/{database}"


class MySQL(Postgres):
    scheme, user_name, ending = "mysql", "mysql", signal.SIGTERM

    @staticmethod
    def found():
        places = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])
        return {
            "mysqld": shutil.which("mariadbd", path=places) or shutil.which("mysqld", path=places),
            "install": shutil.which("mariadb-install-db", path=places) or shutil.which("mysql_install_db", path=places),
        }

    def set_up(self):
        data = self.folder / "data"
        options = ["--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal", "--skip-test-db"]
        self.call("install", *options)
        (self.folder / "init.sql").write_text(
            f"CREATE USER 'sbp'@'127.0.0.1' IDENTIFIED BY '{PASSWORD}'; GRANT ALL ON *.* TO 'sbp'@'127.0.0.1';"
        )
        (self.folder / "init.sql").chmod(0o644)
        self.start()
        engine = create_engine(f"mysql+pymysql://root@localhost/?unix_socket={self.folder}/socket")
        for _ in range(100):
            try:
                with engine.connect() as connection:
                    for statement in (self.folder / "init.sql").read_text().split(";")[:-1]:
                        connection.exec_driver_sql(statement.replace("%", "%%"))
                return
            except Exception:
                time.sleep(0.1)
        pytest.fail((self.folder / "log").read_text())

    def serve(self):
        files = [f"--datadir={self.folder}/data", f"--socket={self.folder}/socket", f"--pid-file={self.folder}/pid"]
        return self.command("mysqld", "--no-defaults", *files, f"--port={self.port}", "--bind-address=127.0.0.1")

    def create(self, name):
        self.execute(f"CREATE DATABASE {name}", "mysql")


@pytest.fixture(scope="module", params=[Postgres, MySQL], ids=["postgresql", "mysql"])
def server(request):
    kind, patch = request.param, pytest.MonkeyPatch()
    pytest.importorskip({"postgresql": "psycopg", "mysql": "pymysql"}[kind.scheme])
    programs = kind.found()
    if missing := [name for name, program in programs.items() if program is None]:
        pytest.skip(f"no {kind.scheme} server on this machine: {', '.join(missing)} not found")
    if os.getuid() == 0 and not any(account.pw_name == kind.user_name for account in pwd.getpwall()):
        pytest.skip(f"a {kind.scheme} server does not run as root, and there is no user {kind.user_name}")
    started = kind(kind.user_name, programs)
    patch.setenv("SBP_TEST_PASSWORD", PASSWORD)
    try:
        started.set_up()
        yield started
    finally:
        started.end()
        patch.undo()


@pytest.fixture
def database(server, request):
    """URL of an empty database."""
    name = f"test_{abs(hash(request.node.name))}"
    server.create(name)
    return server.url(name)


@pytest.fixture
def begun(tmp_path, study_text, database):
    """begun(name) -> (study, its directory): made, and not run."""

    def begin(name):
        document = parse_yaml(study_text, "demo.yaml")
        document["name"] = name
        document["search"]["storage"] = database
        study, path = Study(document, "demo.yaml"), tmp_path / name
        path.mkdir()
        write_text_atomic(path / "study.yaml", yaml_text(study.document))
        enqueue_fixed_points(create_study(path, name, study.objectives, {"versions": {}}), study)
        return study, path

    return begin


def run_all(study, path):
    searcher, number = OptunaSearcher(study, path), 0
    while isinstance(searcher.suggest(f"{path.name}-{number}"), dict):
        searcher.on_trial_complete(f"{path.name}-{number}", {**DONE, "kwh": 1e-6 * (number + 1)})
        number += 1
    return number


def test_several_studies_share_a_database(begun, tmp_path):
    studies = [begun(name) for name in ("one", "two")]
    assert [run_all(study, path) for study, path in studies] == [8, 8]
    for _, path in studies:
        stored = open_study(path)
        assert stored.study_name == path.name and stored.metric_names == ["val_accuracy", "kwh"]
        assert [trial.state for trial in stored.get_trials()] == [TrialState.COMPLETE] * 8
        assert load_study(path).trials["trial_id"].tolist() == [f"{path.name}-{n}" for n in range(8)]
        assert not list(path.glob("*.db")) and PASSWORD not in (path / "study.yaml").read_text()


def test_a_name_that_the_database_has_is_refused(begun, tmp_path, database):
    begun("one")
    shutil.rmtree(tmp_path / "one")
    with pytest.raises(Exception, match=r"has a study named one already; give another --name") as raised:
        begun("one")
    assert database in str(raised.value) and PASSWORD not in str(raised.value)


def test_a_reader_without_access_gets_one_line(begun, server, monkeypatch):
    _, path = begun("one")
    monkeypatch.setenv("SBP_TEST_PASSWORD", "guessed")
    denied = run(app, ["report", str(path)])
    assert denied.exit_code == 1 and len(denied.stderr.splitlines()) == 1
    assert f"error: {server.scheme}://sbp:${{SBP_TEST_PASSWORD}}@" in denied.stderr and "guessed" not in denied.stderr
    assert re.search(r"password authentication failed|Access denied for user 'sbp'", denied.stderr)
    monkeypatch.delenv("SBP_TEST_PASSWORD")
    unset = run(app, ["report", str(path)])
    assert (
        unset.exit_code == 2
        and "the environment variable SBP_TEST_PASSWORD, which it names, is not set" in unset.stderr
    )
    monkeypatch.setenv("SBP_TEST_PASSWORD", PASSWORD)
    server.stop()
    try:
        gone = run(app, ["report", str(path)])
        assert gone.exit_code == 1 and "refused" in gone.stderr and len(gone.stderr.splitlines()) == 1
    finally:
        server.start_again()
    assert run(app, ["report", str(path)]).exit_code == 0


def test_a_server_that_stops_under_a_search(server, database, tmp_path, ray_address):
    """What had finished stays, and once the server is back the rest runs."""
    study = "config: {data: {name: cifar10, root: nowhere}, epochs: 8, optimizer: {lr: {log_uniform: [0.02, 0.4]}}}"
    (tmp_path / "far.yaml").write_text(f"name: far\n{study}\nsearch: {{trials: 12, storage: '{database}'}}")
    arguments = ["search", str(tmp_path / "far.yaml"), "--simulate", "--results", str(tmp_path)]
    command = [sys.executable, "-m", "sbp_tune.cli", *arguments, "--address", ray_address]
    path = tmp_path / "far"
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as driver:
        complete = islice((line for line in driver.stdout if " complete " in line), 3)
        begun = len(list(complete)) == 3
        server.stop()
        _, errors = driver.communicate()
    server.start_again()
    assert begun and driver.returncode == 1 and len(errors.splitlines()) == 2, errors
    assert errors.startswith(f"error: {database}: ") and f"go on with `sbp-tune resume {path}`" in errors
    before = load_study(path).trials
    before = before[before["state"] == "complete"]
    assert len(before) >= 2  # the third was shown before it was told
    resumed = run(app, ["resume", str(path), "--address", ray_address])
    assert resumed.exit_code == 0, resumed.output
    after = load_study(path).trials
    assert after["state"].tolist() == ["complete"] * 12
    assert after.set_index("trial_id").loc[before["trial_id"], "kwh"].tolist() == before["kwh"].tolist()


def test_a_study_that_could_not_be_made_leaves_nothing_in_the_database(database, tmp_path):
    document = {"name": "made", "config": {"epochs": 2}, "search": {"storage": database}, "simulate": {}}
    study = Study(document, "demo.yaml")
    (tmp_path / "made").write_text("somebody's")  # the directory's place is taken
    with pytest.raises(InputError, match="a study of this name exists"):
        _create(study, tmp_path / "made")
    (tmp_path / "made").unlink()
    _create(study, tmp_path / "made")
    assert open_study(tmp_path / "made").study_name == "made"


def test_trials_in_a_database_and_results_on_object_storage(database, bucket, tmp_path, ray_address, monkeypatch):
    """Another machine needs both, and nothing else."""
    study = "config: {data: {name: cifar10, root: nowhere}, epochs: 8, optimizer: {lr: {log_uniform: [0.02, 0.4]}}}"
    (tmp_path / "far.yaml").write_text(f"name: far\n{study}\nsearch: {{trials: 4, storage: '{database}'}}")
    where = ["--results", bucket, "--address", ray_address]
    searched = run(app, ["search", str(tmp_path / "far.yaml"), "--simulate", *where])
    assert searched.exit_code == 0, searched.output
    monkeypatch.setenv("SBP_TUNE_STATE", str(tmp_path / "another machine"))
    extended = run(app, ["extend", "far", "--trials", "+2", *where])
    assert extended.exit_code == 0, extended.output
    remote = Remote(bucket).child("far")
    assert "study.db" not in remote.files() and PASSWORD not in remote.read("study.yaml").decode()
    trials = load_study(fetched(remote.uri)).trials
    assert trials["state"].tolist() == ["complete"] * 6 and trials["kwh"].notna().all()
