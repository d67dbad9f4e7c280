import pytest

from sbp_tune.config import TrainConfig
from sbp_tune.fingerprint import fingerprint


def print_of(**values):
    return fingerprint(TrainConfig.model_validate(values).model_dump(mode="json"))


LINEAR = {"estimator": "mask", "schedule": "linear", "p0": 0.5, "k": 0.1}
CONSTANT = {"estimator": "mask", "p0": 0.5}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"device": "cpu", "cpu_threads": 2}, {"device": "cuda"}),
        ({"energy": {"country": "IRL"}}, {}),
        ({"sparsity": {"estimator": "dense", "p0": 0.3, "k": 0.1}}, {}),
        ({"sparsity": {**CONSTANT, "k": 0.1}}, {"sparsity": {**CONSTANT, "k": 0.2}}),
        ({"sparsity": {**CONSTANT, "layers": {"slope": 0.4}}}, {"sparsity": CONSTANT}),
    ],
)
def test_what_has_no_effect_is_not_in_it(one, other):
    assert print_of(**one) == print_of(**other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"seed": 1}, {"seed": 2}),
        ({"epochs": 3}, {"epochs": 4}),
        ({"sparsity": LINEAR}, {"sparsity": {**LINEAR, "k": 0.2}}),
        ({"sparsity": {**LINEAR, "schedule": "exponential"}}, {"sparsity": LINEAR}),
        ({"model": {"args": {"width": 4}}}, {"model": {"args": {"width": 8}}}),
    ],
)
def test_what_has_an_effect_is(one, other):
    assert print_of(**one) != print_of(**other)
