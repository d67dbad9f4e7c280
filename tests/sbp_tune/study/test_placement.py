import pytest

from sbp_tune.errors import InputError
from sbp_tune.study.placement import AVOIDED, local_nodes, places, trial_resources, trials_at_a_time
from sbp_tune.study.sections import ResourcesConfig

FOUR_T4 = {"CPU": 48.0, "GPU": 4.0}


@pytest.mark.parametrize(
    ("cpu", "gpu", "count"),
    [(12, 1, 4), (1, 1, 4), (24, 1, 2), (1, 0, 48), (5, 0, 9), (49, 0, 0), (1, 0.5, 8), (1, 0.1, 40), (1, 0.6, 4)],
)
def test_how_many_trials_a_node_holds(cpu, gpu, count):
    assert places(FOUR_T4, ResourcesConfig(cpu=cpu, gpu=gpu)) == count


def test_none_fits_is_an_error_that_says_what_there_is(make_study):
    study = make_study(("search: {trials: 6}", "resources: {gpu: 1}"))
    with pytest.raises(InputError) as error:
        trials_at_a_time(study, {"a": {"CPU": 2.0}})
    assert str(error.value) == (
        "demo.yaml: resources: a trial asks for cpu 1 and gpu 1 on one node, but Ray has 2 CPUs and 0 GPUs on 1 node"
    )
    assert trials_at_a_time(study, {"a": {"CPU": 2.0}, "b": FOUR_T4}) == 4


def test_the_study_may_want_fewer(make_study):
    study = make_study(("{trials: 6}", "{trials: 6, concurrent: 3}"))
    assert trials_at_a_time(study, {"a": FOUR_T4}) == 3


def test_this_machine_has_cores():
    (node,) = local_nodes().values()
    assert node["CPU"] >= 1


def test_what_an_autoscaler_would_start_counts(make_study):
    study = make_study(("search: {trials: 6}", "resources: {gpu: 1}"))
    assert trials_at_a_time(study, {"head": {"CPU": 0.0}}, autoscaled=16) == 16


def test_a_trial_is_kept_off_nodes_that_cannot_run_it():
    request = trial_resources(ResourcesConfig(cpu=12, gpu=1))
    anywhere, elsewhere = request({"lease": {}}), request({"lease": {AVOIDED: ["0a1b", "2c3d"]}})
    assert anywhere.bundles == elsewhere.bundles == [{"CPU": 12.0, "GPU": 1.0}]
    assert elsewhere._kwargs == {"bundle_label_selector": [{"ray.io/node-id": "!in(0a1b,2c3d)"}]}
    assert request({}) == anywhere != elsewhere
