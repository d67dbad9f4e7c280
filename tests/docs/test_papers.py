"""docs/papers.md: every key that it names exists, and every value is that of a trial of the study file."""

import re
from pathlib import Path

import pytest

from sbp_tune.config import TrainConfig
from sbp_tune.files import parse_yaml
from sbp_tune.study.file import StudyFile, load_study_file
from search_spaces import shipped_spaces

TEXT = (Path(__file__).parents[2] / "docs" / "papers.md").read_text(encoding="utf-8")
SECTIONS = {
    "feature_ranked_2024": "## Feature-ranked backpropagation, 2024",
    "sparse_backprop_2025": "## Sparse backpropagation, 2025",
}


def section(name):
    return TEXT.split(SECTIONS[name])[1].split("\n## ")[0]


def named(text):
    """Keys in code, dotted or with a value."""
    spans = re.findall(r"`([^`\n]+)`", text)
    return [
        found.groups() for span in spans if (found := re.fullmatch(r"([a-z_0-9]+(?:\.[a-z_0-9]+)*)(?:: (.+))?", span))
    ]


def exists(key):
    for root in (TrainConfig, StudyFile):
        model = root
        for part in key.split("."):
            fields = getattr(model, "model_fields", {})
            model = fields[part].annotation if part in fields else None
            arms = getattr(model, "__args__", ())
            model = next((arm for arm in arms if hasattr(arm, "model_fields")), model)
            if model is None:
                break
        else:
            return True
    return False


def test_every_dotted_key_exists():
    keys = [key for key, value in named(TEXT) if "." in key or value]
    assert len(keys) > 50
    assert [key for key in keys if not exists(key)] == []
    assert not exists("sparsity.nothing") and not exists("sparsit.scope")


@pytest.mark.parametrize("name", SECTIONS)
def test_every_value_is_that_of_a_trial(name):
    study = load_study_file(shipped_spaces()[name])
    configs = [study.train_config(point) for point in study.grid]
    documents = [study.document, *configs]
    values = [(key, parse_yaml(text, key)) for key, text in named(section(name)) if text]
    assert len(values) > 20
    wrong = [(key, value) for key, value in values if not any(held(one, key, value) for one in documents)]
    assert wrong == []


def held(document, key, value):
    for part in key.split("."):
        if not isinstance(document, dict) or part not in document:
            return False
        document = document[part]
    return (
        {str(k): v for k, v in document.items()} == {str(k): v for k, v in value.items()}
        if isinstance(value, dict)
        else document == value
    )


def test_every_shipped_file_that_is_named_exists():
    names = re.findall(r"sbp-tune (?:search|doctor --study) (\w+)", TEXT)
    assert set(names) == set(SECTIONS) and set(names) <= set(shipped_spaces())


def test_the_powers_follow_from_the_printed_numbers():
    for joules, seconds, watts in re.findall(r"([\d,]+) / (\d+) = \*\*([\d,]+) W\*\*", TEXT):
        assert round(int(joules.replace(",", "")) / int(seconds)) == int(watts.replace(",", ""))
    rows = re.findall(
        r"\| ([\d.]+) kWh \| (\d+):(\d\d):(\d\d) \| (\d+) W \| (?:([-+][\d.]+) %, ([-+]?[\d.]+) %)?", TEXT
    )
    assert len(rows) == 9
    standard = (1.0, 1.0)
    for kwh, hours, minutes, seconds, watts, *changes in rows:
        duration = 3600 * int(hours) + 60 * int(minutes) + int(seconds)
        assert int(float(kwh) * 3.6e6 / duration + 0.5) == int(watts)
        if not changes[0]:
            standard = (duration, float(kwh))
            continue
        found = [
            round(100 * (now / before - 1), 1) for now, before in zip((duration, float(kwh)), standard, strict=True)
        ]
        assert found == [float(change) for change in changes]
