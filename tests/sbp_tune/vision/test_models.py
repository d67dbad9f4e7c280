from __future__ import annotations

import warnings
from pathlib import Path
from urllib.parse import urlparse

import pytest
import torch
import torchvision
from torch import nn

from sbp_tune.config import DataConfig, ModelConfig
from sbp_tune.errors import InputError, SbpTuneError
from sbp_tune.vision import augment, build_model, check_model, load_dataset, normalize, scaled
from sbp_tune.vision.torchvision_models import torchvision_names

ONE_OF_EACH_FAMILY = [
    "small_cnn",
    "small_resnet",
    "convnext_tiny",
    "densenet121",
    "efficientnet_b0",
    "googlenet",
    "mnasnet0_5",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "regnet_x_400mf",
    "resnet18",
    "resnext50_32x4d",
    "shufflenet_v2_x0_5",
    "squeezenet1_1",
    "swin_t",
]
USER_MODULE = """
import torch
class Net(torch.nn.Module):
    def __init__(self, num_classes, size=8, outputs=None):
        super().__init__()
        self.head = torch.nn.Linear(size * size, outputs or num_classes)
    def forward(self, images):
        return self.head(images.flatten(1))
def function(num_classes): return 3
"""


@pytest.fixture
def user_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"my_nets_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(USER_MODULE)
    (tmp_path / f"{name}_broken.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    return name


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("name", ONE_OF_EACH_FAMILY)
def test_every_family_trains_on_our_classes_and_channels(name: str) -> None:
    channels = 1 + len(name) % 4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = build_model(ModelConfig(name=name), num_classes=7, channels=channels, image_size=40)
    assert all(module.training for module in model.modules())
    logits = model(torch.randn(2, channels, 40, 40))
    assert logits.shape == (2, 7)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_transformer_is_built_for_the_image_size() -> None:
    model = build_model(ModelConfig(name="vit_b_16"), 3, 3, 32)
    assert model(torch.randn(1, 3, 32, 32)).shape == (1, 3)
    with pytest.raises(InputError, match=r"model.args: vit_b_16 cannot be built for 20 px with {}: Input shape indiv"):
        build_model(ModelConfig(name="vit_b_16"), 3, 3, 20)
    with pytest.raises(InputError, match=r"maxvit_t cannot be built for 32 px .* partition size") as failure:
        build_model(ModelConfig(name="maxvit_t"), 3, 3, 32)
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize("name", ["small_cnn", "resnet18"])
@pytest.mark.parametrize("init", ["default", "he"])
def test_same_seed_gives_same_weights_and_the_check_draws_nothing(name: str, init: str) -> None:
    built = []
    for _ in range(2):
        torch.manual_seed(5)
        model = build_model(ModelConfig(name=name, init=init), 4, 1, 32)
        built.append((weights(model), torch.rand(1).item()))
    assert built[0][1] == built[1][1]
    assert all(torch.equal(value, built[1][0][key]) for key, value in built[0][0].items())
    torch.manual_seed(5)
    build_model(ModelConfig(name=name, init=init), 4, 1, 48)
    assert torch.rand(1).item() == built[0][1]
    assert all(int(value) == 0 for key, value in built[0][0].items() if key.endswith("num_batches_tracked"))


def test_check_accepts_all_shipped_names() -> None:
    for name in ["small_cnn", "small_resnet", *torchvision_names()]:
        check_model(ModelConfig(name=name))
    assert "resnet50" in torchvision_names() and "raft_small" not in torchvision_names()


def test_unknown_name_has_near_matches() -> None:
    with pytest.raises(InputError, match=r"model.name: found 'resnet81'; allowed: .* \(did you mean resnet18"):
        check_model(ModelConfig(name="resnet81"))
    with pytest.raises(InputError, match=r"module:Class$"):
        build_model(ModelConfig(name="zzz"), 2, 3, 32)


@pytest.mark.parametrize("name", ["small_cnn", "resnet18", "squeezenet1_1"])
def test_unknown_argument_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"model.args: {name} cannot be built .*'widht'"):
        build_model(ModelConfig(name=name, args={"widht": 3}), 2, 3, 32)


def test_arguments_reach_the_network() -> None:
    assert build_model(ModelConfig(args={"width": 8}), 2, 1, 8).head.in_features == 32
    model = build_model(ModelConfig(name="resnet18", args={"zero_init_residual": True}), 2, 3, 32)
    assert (model.layer1[0].bn2.weight == 0).all()
    for width in (0, "wide"):
        with pytest.raises(InputError, match=r"model.args.width: found"):
            build_model(ModelConfig(args={"width": width}), 2, 1, 8)


def test_too_small_image_names_the_network_and_the_size() -> None:
    with pytest.raises(InputError, match=r"model.name: alexnet does not take images of 32x32 px with 3 channels"):
        build_model(ModelConfig(name="alexnet"), 2, 3, 32)


def test_auxiliary_outputs_only_when_asked_for() -> None:
    model = build_model(ModelConfig(name="googlenet", args={"aux_logits": True}), 3, 3, 64)
    assert model(torch.randn(2, 3, 64, 64)).aux_logits1.shape == (2, 3)
    assert build_model(ModelConfig(name="inception_v3"), 3, 3, 80)(torch.randn(2, 3, 80, 80)).shape == (2, 3)


@pytest.mark.parametrize(
    ("name", "layer", "channels"),
    [
        ("resnet18", "layer1", 3),
        ("resnet18", "layer1", 1),
        ("densenet121", "features.denseblock1", 3),
        ("googlenet", "conv2", 1),
    ],
)
def test_cifar_stem_keeps_the_resolution(name: str, layer: str, channels: int) -> None:
    sizes: dict[str, int] = {}
    for stem in ("imagenet", "cifar"):
        model = build_model(ModelConfig(name=name, stem=stem), 10, channels, 32)
        seen = lambda _, inputs, stem=stem: sizes.update({stem: inputs[0].shape[-1]})  # noqa: E731
        model.get_submodule(layer).register_forward_pre_hook(seen)
        model(torch.zeros(2, channels, 32, 32))
    assert sizes == {"imagenet": 8, "cifar": 32}


def test_cifar_stem_of_mobilenet_halves_once_less() -> None:
    model = build_model(ModelConfig(name="mobilenet_v2", stem="cifar"), 10, 3, 32)
    assert model.features(torch.zeros(2, 3, 32, 32)).shape[-1] == 2


@pytest.mark.parametrize("name", ["resnext50_32x4d", "wide_resnet50_2", "densenet169", "mobilenet_v2", "googlenet"])
def test_check_accepts_families_with_a_cifar_stem(name: str) -> None:
    check_model(ModelConfig(name=name, stem="cifar"))


@pytest.mark.parametrize("name", ["vgg11", "small_cnn"])
def test_unknown_cifar_stem_lists_the_families(name: str) -> None:
    with pytest.raises(InputError, match=f"no cifar stem is known for {name}; .*: resnet, resnext, wide_resnet, dense"):
        check_model(ModelConfig(name=name, stem="cifar"))


def test_he_initialisation_has_the_fan_out_variance_and_leaves_norms() -> None:
    torch.manual_seed(0)
    model = build_model(ModelConfig(name="resnet18", init="he"), 100, 3, 32)
    assert model.conv1.weight.std().item() == pytest.approx((2 / (64 * 49)) ** 0.5, rel=0.05)
    assert model.fc.weight.std().item() == pytest.approx((2 / 100) ** 0.5, rel=0.05)
    assert (model.fc.bias == 0).all() and (model.bn1.weight == 1).all()


def save_as_pretrained(name: str, home: Path) -> nn.Module:
    """Puts random weights where torch keeps what it has fetched."""
    entry = torchvision.models.get_model_weights(name).DEFAULT
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    model = torchvision.models.get_model(name, weights=None, **options)
    folder = home / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(model.state_dict(), folder / Path(urlparse(entry.url).path).name)
    return model


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "squeezenet1_1", "googlenet", "inception_v3"])
def test_pretrained_weights_get_a_new_head(
    name: str, channels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    stored = save_as_pretrained(name, tmp_path).state_dict()
    model = build_model(ModelConfig(name=name, pretrained=True), 6, channels, 80)
    found = model.state_dict()
    changed = [key for key, value in found.items() if value.shape != stored[key].shape]
    assert all(found[key].shape[0] == 6 or "weight" in key for key in changed)
    same = [key for key, value in found.items() if key not in changed and torch.equal(value, stored[key])]
    assert len(same) == len(found) - len(changed)
    assert model(torch.randn(2, channels, 80, 80)).shape == (2, 6)


def test_pretrained_grey_input_sees_what_a_grey_image_showed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    stored = save_as_pretrained("squeezenet1_1", tmp_path)
    model = build_model(ModelConfig(name="squeezenet1_1", pretrained=True), 6, 1, 64)
    grey = torch.randn(2, 1, 64, 64)
    torch.testing.assert_close(model.features[0](grey), stored.features[0](grey.expand(-1, 3, -1, -1)))


def test_weights_that_cannot_be_fetched_fail_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nobody listens
    with pytest.raises(SbpTuneError, match=r"model.pretrained: the weights of resnet18 cannot be fetched"):
        build_model(ModelConfig(name="resnet18", pretrained=True), 6, 3, 64)


def test_pretrained_contradictions_are_refused() -> None:
    with pytest.raises(InputError, match="small_cnn has no pretrained weights"):
        check_model(ModelConfig(pretrained=True))
    with pytest.raises(InputError, match="he would overwrite the pretrained weights"):
        check_model(ModelConfig(name="resnet18", pretrained=True, init="he"))


def test_user_class_is_built_with_its_arguments(user_module: str) -> None:
    model = build_model(ModelConfig(name=f"{user_module}:Net", args={"size": 12}), 5, 1, 12)
    assert model(torch.zeros(3, 1, 12, 12)).shape == (3, 5)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("absent_module:Net", "'absent_module' cannot be imported: No module named"),
        ("{module}_broken:Net", "cannot be imported: division by zero"),
        ("{module}:Nett", "has no 'Nett'"),
        ("{module}:function", "is not a torch.nn.Module class"),
        (":Net", "cannot be imported"),
        ("{module}:", "has no ''"),
    ],
)
def test_user_class_that_cannot_be_used_is_one_clear_line(user_module: str, target: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_model(ModelConfig(name=target.format(module=user_module)))


def test_user_class_must_fit_the_data(user_module: str) -> None:
    name = f"{user_module}:Net"
    with pytest.raises(InputError, match="does not take images of 9x9 px with 1 channel "):
        build_model(ModelConfig(name=name), 5, 1, 9)
    with pytest.raises(InputError, match=r"gives \(2, 4\) for 2 images, needs logits of shape \(2, 5\)"):
        build_model(ModelConfig(name=name, args={"outputs": 4}), 5, 1, 8)
    with pytest.raises(InputError, match=r"model.args: .*unexpected keyword argument 'depth'"):
        build_model(ModelConfig(name=name, args={"depth": 4}), 5, 1, 8)


def test_small_cnn_learns_the_digits() -> None:
    torch.manual_seed(0)
    data = load_dataset(DataConfig())
    model = build_model(ModelConfig(), data.num_classes, data.channels, 8)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(0)
    for _ in range(8):
        for batch in torch.randperm(len(data.train), generator=generator).split(64):
            split = data.train.select(batch)
            images = augment(normalize(scaled(split.images), data.mean, data.std), "none", generator)
            loss = nn.functional.cross_entropy(model(images), split.labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.eval()
    with torch.no_grad():
        predicted = model(normalize(scaled(data.test.images), data.mean, data.std)).argmax(1)
    assert (predicted == data.test.labels).float().mean() > 0.95
