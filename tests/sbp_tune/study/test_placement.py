import fake_gpus
import pytest
import ray.tune

from sbp_tune.errors import InputError
from sbp_tune.study import launch
from sbp_tune.study.demand import AVOIDED, Demand, places
from sbp_tune.study.file import Study
from sbp_tune.study.placed import placed
from sbp_tune.study.placement import gpu_types, holds, local_nodes, trials_at_a_time
from sbp_tune.study.storage import create_study

FOUR_T4 = {"CPU": 48.0, "GPU": 4.0, "accelerator_type:T4": 1.0}


@pytest.mark.parametrize(
    ("cpu", "gpu", "count"),
    [
        *((12, 1, 4), (1, 1, 4), (24, 1, 2), (1, 0, 48), (5, 0, 9), (49, 0, 0), (1, 0.5, 8), (1, 0.1, 40), (1, 0.6, 4)),
        *((1, 2, 2), (1, 3, 1), (1, 5, 0)),
    ],
)
def test_how_many_trials_a_node_holds(cpu, gpu, count):
    assert places(FOUR_T4, Demand(cpu, gpu)) == count


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


def with_resources(make_study, text, *more):
    return make_study(("search: {trials: 6}", f"search: {{trials: 6}}\nresources: {text}"), *more)


TWO_MODELS = ("data: {name: digits", "model: {name: {choice: [small_cnn, small_resnet]}}\n  data: {name: digits")
A10 = {"CPU": 16.0, "GPU": 1.0, "accelerator_type:A10G": 1.0}


def test_a_study_that_says_nothing_takes_a_gpu_and_its_share_of_the_cores(make_study):
    study = make_study().placed_on({"a": FOUR_T4})
    assert list(study.demands()) == [Demand(12, 1)] and trials_at_a_time(study, {"a": FOUR_T4}) == 4
    chosen = {"cpu": 12, "gpu": 1.0, "accelerator_type": None, "models": {}, "epoch_timeout_s": None}
    assert study.document["resources"] == chosen
    config = study.train_config(study.baselines[0])
    assert (config["device"], config["cpu_threads"]) == ("cuda", 12)
    assert list(make_study().placed_on({"a": {"CPU": 2.0}}).demands()) == [Demand(1, 0)]
    assert Study(study.document, "study.yaml").placed_on({"a": {"CPU": 2.0}}).document == study.document


def test_a_study_on_the_processor_takes_no_gpu(make_study):
    study = make_study(("data: {name: digits", "device: cpu\n  data: {name: digits"))
    assert list(study.placed_on({"a": FOUR_T4}).demands()) == [Demand(1, 0)]


def test_models_of_different_size(make_study):
    study = with_resources(make_study, "{cpu: 12, gpu: 1, models: {small_resnet: {cpu: 24}}}", TWO_MODELS)
    assert study.demands() == {Demand(12, 1): ["small_cnn"], Demand(24, 1): ["small_resnet"]}
    assert trials_at_a_time(study, {"a": FOUR_T4}) == 4
    assert holds(study, FOUR_T4) == "2 (small_resnet) to 4 (small_cnn) trials"
    threads = {name: study.train_config({"model.name": name})["cpu_threads"] for name in study.models}
    assert threads == {"small_cnn": 12, "small_resnet": 24}
    with pytest.raises(InputError) as error:
        trials_at_a_time(study, {"a": A10})
    assert error.value.problems == [
        "demo.yaml: resources.models.small_resnet: a trial asks for cpu 24 and gpu 1 on one node, but Ray has 16 CPUs "
        "and 1 GPUs on 1 node"
    ]


def test_a_type_that_no_node_has(make_study):
    study = with_resources(make_study, "{gpu: 1, accelerator_type: A100}")
    with pytest.raises(InputError, match=r"gpu 1 of type A100 on one node, .* 5 GPUs \(types: A10G, T4\) on 2 nodes"):
        trials_at_a_time(study, {"a": FOUR_T4, "b": A10})


def test_a_mixed_cluster_needs_a_type(make_study):
    nodes = {"a": FOUR_T4, "b": A10}
    with pytest.raises(InputError) as error:
        trials_at_a_time(with_resources(make_study, "{cpu: 1, gpu: 1}"), nodes)
    assert str(error.value) == (
        "demo.yaml: resources.accelerator_type: missing; the machines have GPUs of 2 types, on which kwh does not "
        "compare; needs one of A10G, T4"
    )
    typed = with_resources(make_study, "{cpu: 1, gpu: 1, accelerator_type: T4}")
    assert trials_at_a_time(typed, nodes) == 4 and gpu_types(typed, nodes) == ["T4"]
    assert trials_at_a_time(with_resources(make_study, "{cpu: 24, gpu: 1}"), nodes) == 2  # it fits on one type alone
    assert trials_at_a_time(with_resources(make_study, "{cpu: 1, gpu: 0}"), nodes) == 64
    apart = ("config:", "objectives: {val_accuracy: max, tflop: min}\nconfig:")  # nothing that differs by the device
    assert trials_at_a_time(with_resources(make_study, "{cpu: 1, gpu: 1}", apart), nodes) == 5


def test_a_machine_of_unlike_gpus_is_not_one_type(make_study):
    both = {**FOUR_T4, "accelerator_type:A10G": 1.0}
    with pytest.raises(InputError, match=r"this machine has GPUs of 2 types \(A10G, T4\), .* set CUDA_VISIBLE_DEVICES"):
        trials_at_a_time(with_resources(make_study, "{gpu: 1, accelerator_type: T4}"), {"this machine": both})


def test_this_machines_gpus_are_those_that_ray_would_see(monkeypatch):
    nvml = fake_gpus.fake_nvml()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (node,) = local_nodes(nvml).values()
    assert node["GPU"] == 4 and node["accelerator_type:T4"] == 1
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
    (node,) = local_nodes(nvml).values()
    assert node["GPU"] == 1


def test_a_study_that_goes_on_elsewhere_is_warned(make_study, tmp_path, storage_in_memory, capsys):
    study = with_resources(make_study, "{cpu: 1, gpu: 1}")
    create_study(tmp_path, "demo", study.objectives, {"gpu_types": ["T4"]})
    launch._warn_of_other_gpus(study, tmp_path, ["T4"])
    assert capsys.readouterr().err == ""
    launch._warn_of_other_gpus(study, tmp_path, ["A10G"])
    assert "began on GPUs of type T4 and goes on with A10G: their kWh and times do not" in capsys.readouterr().err


def test_what_an_autoscaler_would_start_counts(make_study):
    study = make_study(("search: {trials: 6}", "resources: {gpu: 1}"))
    assert trials_at_a_time(study, {"head": {"CPU": 0.0}}, autoscaled=16) == 16


def test_a_trial_is_kept_off_nodes_that_cannot_run_it(make_study):
    study = with_resources(make_study, "{cpu: 12, gpu: 1}")
    request = placed(ray.tune.Trainable, study).default_resource_request
    config = study.train_config(study.baselines[0])
    anywhere = request({**config, "lease": {}})
    elsewhere = request({**config, "lease": {AVOIDED: ["0a1b", "2c3d"]}})
    assert anywhere.bundles == elsewhere.bundles == [{"CPU": 12.0, "GPU": 1.0}]
    assert elsewhere._kwargs == {"bundle_label_selector": [{"ray.io/node-id": "!in(0a1b,2c3d)"}]}
    assert request(config) == anywhere != elsewhere
