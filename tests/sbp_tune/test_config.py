import pickle

import pytest

from sbp_tune.config import TrainConfig, config_from_text, is_meaningless, load_config, plugin_names
from sbp_tune.errors import InputError
from sbp_tune.files import parse_yaml, yaml_text


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "sparsity: {p0: 50}",
            "sparsity.p0: found 50; p is a fraction, not a percent: the part that is kept, in (0, 1] (50 % is 0.5)",
        ),
        ("sparsity: {p0: 0}", "sparsity.p0: found 0; allowed: the fraction that is kept, in (0, 1]"),
        (
            "sparsity: {estimator: maks}",
            "sparsity.estimator: found 'maks'; allowed: dense, mask (did you mean mask?)",
        ),
        ("data: {naem: digits}", "data.naem: unknown key (did you mean name?); allowed: name, root, batch_size"),
        (
            "data: {name: mnist}",
            "data.name: found 'mnist'; allowed: cifar10, cifar100, digits, flowers102, image_folder",
        ),
        ("epochs: 1.5", "epochs: found 1.5; input should be a valid integer"),
        ("epochs: '3'", "epochs: found '3'; input should be a valid integer"),
        ("epochs: true", "epochs: found True; input should be a valid integer"),
        ("epochs: 0", "epochs: found 0; input should be greater than or equal to 1"),
        ("optimizer: {lr: .nan}", "optimizer.lr: found nan; input should be a finite number"),
        ("optimizer: {name: sgdd}", "optimizer.name: found 'sgdd'; allowed: 'sgd', 'adam' or 'adamw'"),
        ("optimizer: {betas: [0.9, 2]}", "optimizer.betas.1: found 2; input should be less than 1"),
        ("sparsity: 3", "sparsity: found 3; input should be a valid dictionary"),
        ("early_stopping: {patiense: 2}", "early_stopping.patiense: unknown key (did you mean patience?)"),
        ("lr_schedule: {warmup_epochs: 10}", "lr_schedule.warmup_epochs: 10: must be below epochs (10)"),
        ("", "the file: found nothing, needs a mapping"),
        ("- 1", "the file: found a list, needs a mapping"),
    ],
)
def test_each_error_is_one_line_with_key_value_and_what_is_allowed(text, line):
    with pytest.raises(InputError) as error:
        config_from_text(text, "x.yaml")
    assert len(error.value.problems) == 1
    # other people's estimators may lengthen the list of what is allowed
    assert error.value.problems[0].startswith("x.yaml: ")
    for part in line.split("allowed: dense, mask"):
        assert part in error.value.problems[0]


def test_all_errors_of_a_file_at_once():
    with pytest.raises(InputError) as error:
        config_from_text("sparsity: {p0: 50}\ndata: {naem: digits}\nepochs: x", "x.yaml")
    assert [line.split(": ")[1] for line in error.value.problems] == ["data.naem", "sparsity.p0", "epochs"]


def test_errors_cross_process_boundaries():
    error = pickle.loads(pickle.dumps(InputError(["a", "b"])))
    assert error.problems == ["a", "b"] and error.exit_code == 2


def test_defaults_are_valid_and_complete_configs_read_back(tmp_path):
    config = TrainConfig()
    (tmp_path / "config.yaml").write_text(yaml_text(config.model_dump(mode="json")))
    assert load_config(tmp_path / "config.yaml") == config


def test_every_field_of_a_section_says_what_it_is():
    undescribed = []
    for section, field in TrainConfig.model_fields.items():
        for name, leaf in getattr(field.annotation, "model_fields", {}).items():
            if leaf.description is None and name not in ("name", "metric", "weight_decay", "estimator", "schedule"):
                undescribed.append(f"{section}.{name}")
    assert undescribed == []


def test_plugins_are_the_files():
    assert {"dense", "mask"} <= set(plugin_names("sparsity/estimators"))
    assert plugin_names("vision/datasets") == ["cifar10", "cifar100", "digits", "flowers102", "image_folder"]


@pytest.mark.parametrize(
    ("key", "values", "meaningless"),
    [
        ("sparsity.p0", {"sparsity.estimator": "dense"}, True),
        ("sparsity.p0", {"sparsity.estimator": "mask"}, False),
        ("sparsity.p0", {}, True),
        ("sparsity.k", {"sparsity.estimator": "mask", "sparsity.schedule": "constant"}, True),
        ("sparsity.k", {"sparsity.estimator": "mask", "sparsity.schedule": "linear"}, False),
        ("sparsity.estimator", {"sparsity.estimator": "dense"}, False),
        ("optimizer.lr", {"sparsity.estimator": "dense"}, False),
    ],
)
def test_what_means_nothing(key, values, meaningless):
    assert is_meaningless(key, values) is meaningless


def test_exponents_without_a_point_are_numbers():
    assert config_from_text("optimizer: {lr: 1e-2}").optimizer.lr == 0.01
    assert parse_yaml("1e-2", "x") == 0.01
