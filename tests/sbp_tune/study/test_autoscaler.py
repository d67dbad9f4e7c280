import pytest

from sbp_tune.files import write_text_atomic, yaml_text
from sbp_tune.study.autoscaler import autoscaled_machines, autoscaled_places
from sbp_tune.study.demand import Demand

T4S = {"resources": {"CPU": 48, "GPU": 4}, "max_workers": 4}
HEAD = {"resources": {"CPU": 0}}


@pytest.fixture
def places(tmp_path):
    """places(types, max_workers, resources) of a cluster of such machine types."""

    def of(types, max_workers, **resources):
        document = {"head_node_type": "head", "max_workers": max_workers, "available_node_types": types}
        write_text_atomic(tmp_path / "cluster.yaml", yaml_text(document))
        return autoscaled_places([Demand(**resources)], tmp_path / "cluster.yaml")

    return of


@pytest.mark.parametrize(
    ("types", "max_workers", "expected"),
    [
        ({"head": HEAD, "spot": T4S}, 4, 16),
        ({"head": HEAD, "spot": T4S, "on_demand": T4S}, 4, 16),  # of both together no more than 4
        ({"head": HEAD, "spot": T4S, "on_demand": T4S}, 6, 24),
        ({"head": HEAD, "small": {"resources": {"CPU": 16, "GPU": 1}, "max_workers": 4}, "spot": T4S}, 5, 17),
        ({"head": HEAD, "spot": {"resources": {"CPU": 48, "GPU": 4}}}, 3, 12),  # as many as the cluster
        ({"head": T4S, "spot": {"resources": {}, "max_workers": 4}}, 4, 1),  # not known: one that waits brings one
        ({"head": T4S}, 0, 1),
    ],
)
def test_what_the_machines_hold_together(places, types, max_workers, expected):
    assert places(types, max_workers, cpu=12, gpu=1) == expected


def test_no_autoscaler_adds_nothing(tmp_path):
    assert autoscaled_places([Demand(1)], tmp_path / "none.yaml") == 0 and not autoscaled_machines(
        tmp_path / "none.yaml"
    )


def test_a_study_that_says_nothing_takes_what_the_machines_will_have(tmp_path, make_study):
    types = {"head": HEAD, "spot": T4S}
    document = {"head_node_type": "head", "max_workers": 4, "available_node_types": types}
    write_text_atomic(tmp_path / "cluster.yaml", yaml_text(document))
    machines = autoscaled_machines(tmp_path / "cluster.yaml")
    assert list(machines.values()) == [{"CPU": 48, "GPU": 4}] * 4
    assert list(make_study().placed_on({"head": {"CPU": 0.0}, **machines}).demands()) == [Demand(12, 1)]
