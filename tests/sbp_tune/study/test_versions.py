import subprocess
from pathlib import Path

import pytest

from sbp_tune.study.versions import code_revision, versions


@pytest.fixture
def repository(tmp_path):
    """A repository with a package in it, and git in its folder."""

    def git(*arguments):
        identity = ["-c", "user.name=me", "-c", "user.email=me@example.org", "-c", "commit.gpgsign=false"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("")
    (tmp_path / "notes.txt").write_text("")
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "-m", "first")
    return tmp_path, git


def test_revision_and_whether_code_has_changed_since(repository):
    folder, git = repository
    package, head = folder / "package", git("rev-parse", "HEAD")
    assert code_revision(package) == head and len(head) == 40
    (folder / "notes.txt").write_text("not code")
    (folder / "results").mkdir()
    assert code_revision(package) == head
    (package / "new_rule.py").write_text("")
    assert code_revision(package) == f"{head} dirty"
    git("add", ".")
    git("commit", "--quiet", "-m", "second")
    assert code_revision(package) == git("rev-parse", "HEAD") != head
    (package / "__init__.py").write_text("x = 1\n")
    assert code_revision(package).endswith(" dirty")


def test_none_where_no_repository_tracks_the_code(repository, tmp_path, monkeypatch):
    folder, _ = repository
    installed = folder / ".venv" / "package"  # inside a repository that is somebody else's
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("")
    assert code_revision(installed) is None
    assert code_revision(tmp_path / "nowhere") is None
    monkeypatch.setenv("PATH", "")  # no git
    assert code_revision(folder / "package") is None


def test_versions_name_what_decides_the_results():
    found = versions()
    assert {"python", "sbp-tune", "torch", "ray", "optuna"} <= set(found)
    assert found.get("git") == code_revision(Path(__file__).parents[3] / "sbp_tune")
