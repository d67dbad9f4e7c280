import os
import stat

import pytest

from sbp_tune.errors import InputError
from sbp_tune.files import parse_yaml, read_yaml, write_atomic, write_text_atomic, yaml_text


def test_yaml_1_2_numbers_and_words():
    assert parse_yaml("a: 1e-3\nb: no\nc: 012", "x") == {"a": 0.001, "b": "no", "c": 12}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2", 'x.yaml:2:1: not valid YAML: found duplicate key "a"'),
        ("a: [1", "x.yaml:1:6: not valid YAML"),
        ("a: b: c", "x.yaml:1:5: not valid YAML: mapping values are not allowed here"),
        ("a: !!python/object/apply:os.system [id]", "could not determine a constructor"),
    ],
)
def test_malformed_yaml_names_the_place(text, message):
    with pytest.raises(InputError) as error:
        parse_yaml(text, "x.yaml")
    assert message in str(error.value) and "\n" not in str(error.value)


def test_missing_and_binary_files(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_yaml(tmp_path / "none.yaml")
    (tmp_path / "image.yaml").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(InputError, match="cannot be read as text"):
        read_yaml(tmp_path / "image.yaml")
    with pytest.raises(InputError, match="cannot be read as text"):
        read_yaml(tmp_path)


def test_yaml_text_reads_back():
    data = {"b": 1, "a": {"z": 1e-5, "y": [1, "2", None, True, 0.1], "no": "no"}}
    assert parse_yaml(yaml_text(data), "x") == data
    assert yaml_text(data).startswith("b:")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "sub" / "table.csv"
    write_text_atomic(target, "old")

    def breaks(file):
        file.write_text("half")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError):
        write_atomic(target, breaks)
    assert target.read_text() == "old"
    assert [entry.name for entry in target.parent.iterdir()] == ["table.csv"]


def test_files_have_ordinary_rights(tmp_path):
    write_text_atomic(tmp_path / "a", "x")
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o666 & ~umask
