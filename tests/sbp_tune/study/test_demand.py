import pytest

from sbp_tune.study.demand import Demand, demand_of, places, resolved, types_of
from sbp_tune.study.sections import ResourcesConfig

FOUR_T4 = {"CPU": 48.0, "GPU": 4.0, "accelerator_type:T4": 1.0}
ONE_A10 = {"CPU": 16.0, "GPU": 1.0, "accelerator_type:A10G": 1.0}
LAPTOP = {"CPU": 8.0}


@pytest.mark.parametrize(
    ("text", "nodes", "expected"),
    [
        ({}, [FOUR_T4], (12, 1)),
        ({}, [LAPTOP], (1, 0)),
        ({}, [LAPTOP, FOUR_T4], (12, 1)),
        ({}, [FOUR_T4, {"CPU": 8.0, "GPU": 4.0}], (2, 1)),  # of unlike nodes the smallest share
        ({}, [{"CPU": 2.0, "GPU": 4.0}], (1, 1)),
        ({"gpu": 0.5}, [FOUR_T4], (6, 0.5)),
        ({"gpu": 2}, [FOUR_T4], (24, 2)),
        ({"gpu": 0}, [FOUR_T4], (1, 0)),
        ({"cpu": 3}, [FOUR_T4], (3, 1)),
        ({"cpu": 3}, [LAPTOP], (3, 0)),
        ({"accelerator_type": "A10G"}, [FOUR_T4, ONE_A10], (16, 1)),
        ({"accelerator_type": "A10G"}, [LAPTOP], (1, 1)),  # fits nowhere, as will be said
    ],
)
def test_what_is_left_out_follows_from_the_machines(text, nodes, expected):
    found = resolved(ResourcesConfig(**text), {str(place): node for place, node in enumerate(nodes)})
    assert (found.cpu, found.gpu) == expected
    assert resolved(found, {}) == found  # and stays: a study goes on as it began


def test_a_file_that_trains_on_the_processor_takes_no_gpu():
    found = resolved(ResourcesConfig(), {"a": FOUR_T4}, may_use_gpu=False)
    assert (found.cpu, found.gpu) == (1, 0)


@pytest.mark.parametrize(
    ("text", "vgg19", "other"),
    [
        ({"models": {"vgg19": {"gpu": 2}}}, (24, 2), (12, 1)),
        ({"models": {"vgg19": {"cpu": 40}}}, (40, 1), (12, 1)),
        ({"cpu": 4, "gpu": 1, "models": {"vgg19": {"gpu": 2}}}, (4, 2), (4, 1)),
        ({"cpu": 4, "gpu": 1, "models": {"vgg19": {"gpu": 0}}}, (4, 0), (4, 1)),
    ],
)
def test_a_model_may_take_something_else(text, vgg19, other):
    found = resolved(ResourcesConfig(**text), {"a": FOUR_T4})
    assert demand_of(found, "vgg19") == Demand(*vgg19) and demand_of(found, "alexnet") == Demand(*other)


def test_a_demand_as_ray_takes_it():
    assert Demand(12, 1, "T4").bundle == {"CPU": 12.0, "GPU": 1.0, "accelerator_type:T4": 0.001}
    assert Demand(1).bundle == {"CPU": 1.0, "GPU": 0.0}
    assert str(Demand(12, 0.5, "T4")) == "12 CPU and 0.5 GPU of type T4"


def test_only_nodes_of_the_type_hold_it():
    assert places(FOUR_T4, Demand(1, 1, "T4")) == 4 and places(ONE_A10, Demand(1, 1, "T4")) == 0


def test_types_are_those_of_nodes_with_gpus():
    nodes = {"a": FOUR_T4, "b": ONE_A10, "c": LAPTOP, "d": {"CPU": 1.0, "GPU": 1.0}}
    assert types_of(nodes) == ["A10G", "T4", "unknown"]
    assert types_of({"c": LAPTOP, "none": {"CPU": 1.0, "accelerator_type:T4": 1.0}}) == []
