"""TrainConfig: everything one training run needs, and the format that `export` writes.

Strict: an unknown key, a wrong type or an impossible value is an error that names the dotted key,
what was found and what is allowed. Numbers carry their unit in the field's description.
"""

from __future__ import annotations

import types
import typing
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field, ValidationError, model_validator

from sbp_tune.errors import InputError
from sbp_tune.files import parse_yaml, read_yaml
from sbp_tune.place import place_problem
from sbp_tune.section import Section, near, plugin, plugin_names
from sbp_tune.sparsity_config import DECIDING, SparsityConfig, has_no_effect

__all__ = [
    "DECIDING_KEYS",
    "SparsityConfig",
    "TrainConfig",
    "check_config",
    "config_from_text",
    "is_meaningless",
    "load_config",
    "plugin_names",
]


AUGMENTATIONS = ("flip", "crop", "resize", "rotate", "zoom", "jitter")


def _augmentations(text: str) -> str:
    names = [] if text == "none" else text.split("_")
    if not set(names) <= set(AUGMENTATIONS) or len(set(names)) < len(names):
        raise ValueError(
            f"allowed: none, or some of {', '.join(AUGMENTATIONS)}, each once, joined by _ as in crop_flip"
        )
    return text


class DataConfig(Section):
    """Which images, how they are split, and how they are fed."""

    name: Annotated[str, plugin("vision/datasets")] = Field("digits", description="data set")
    root: str | None = Field(None, description="folder of the data; needed by all but digits")
    batch_size: int = Field(128, ge=1, description="images per optimizer step")
    image_size: int | None = Field(None, ge=8, le=1024, description="pixels per side after resizing; none: as stored")
    classes: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        (), strict=False, description="only these classes, by name, in this order; none: all"
    )
    class_count: int | None = Field(
        None, ge=2, description="so many of the classes, drawn by split_seed; none: all, or those in classes"
    )
    subset: int | None = Field(None, ge=2, description="training images to use, drawn stratified by class; none: all")
    val_fraction: float = Field(0.2, gt=0, lt=1, description="part of the images held out where no split is given")
    test_fraction: float = Field(0.2, gt=0, lt=1, description="part held out for the test where no split is given")
    split_seed: int = Field(0, ge=0, description="seed of splits, classes and subsets; the same for all trials")
    resplit: bool = Field(
        False, description="hold out val_fraction of the training and validation images together, if these are split"
    )
    augment: Annotated[str, AfterValidator(_augmentations)] = Field(
        "none", description=f"per image, on the device: some of {', '.join(AUGMENTATIONS)}, joined by _"
    )
    normalize: Literal["standard", "min_max"] = Field(
        "standard", description="standard: mean 0 and deviation 1 for each channel; min_max: 0 to 1"
    )
    skip_unreadable: bool = Field(False, description="leave out images that cannot be decoded instead of stopping")
    download: bool = Field(False, description="may use the network to fetch a torchvision data set")

    @model_validator(mode="after")
    def _one_choice_of_classes(self) -> DataConfig:
        if self.classes and self.class_count is not None:
            raise ValueError("data.class_count: cannot be given beside data.classes")
        return self


class ModelConfig(Section):
    """Which network. The number of classes and of input channels follows from the data."""

    name: str = Field(
        "small_cnn", min_length=1, description="small_cnn, small_resnet, a torchvision classifier, or module:Class"
    )
    args: dict[str, Any] = Field(default_factory=dict, description="further keyword arguments of the model")
    stem: Literal["imagenet", "cifar"] = Field("imagenet", description="cifar: first layers keep the resolution")
    init: Literal["default", "he"] = Field(
        "default", description="he: He normal, fan-out, for all conv and linear layers"
    )
    pretrained: bool = Field(False, description="torchvision's default weights; may use the network")
    weights: str | None = Field(None, description="file to start from: model.pt of an earlier run; its head may differ")


class OptimizerConfig(Section):
    """Optimizer. Normalisation parameters and biases are not decayed less than weights, as in the papers."""

    name: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: float = Field(0.1, gt=0, le=100, description="peak learning rate")
    momentum: float = Field(0.9, ge=0, lt=1, description="sgd only")
    nesterov: bool = Field(False, description="sgd only")
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = Field(
        (0.9, 0.999), description="adam and adamw only", strict=False
    )
    weight_decay: float = Field(0.0, ge=0, le=10)
    fused: bool | None = Field(None, description="one kernel for the whole update; none: on a CPU, where it is faster")


class LrScheduleConfig(Section):
    """Learning rate over the epochs."""

    name: Literal["constant", "cosine", "step"] = "cosine"
    per: Literal["epoch", "step"] = Field("epoch", description="how often it changes")
    warmup_epochs: int = Field(0, ge=0, description="epochs of linear increase to the peak")
    milestones: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        (0.5, 0.75), description="step only: fractions of the epochs", strict=False
    )
    gamma: float = Field(0.1, gt=0, le=1, description="step only: factor at each milestone")


class EarlyStoppingConfig(Section):
    """Stops a run whose metric no longer improves; the same rule in every arm of a comparison."""

    metric: Literal["val_loss", "val_accuracy"] = "val_loss"
    patience: int = Field(10, ge=1, description="epochs without improvement")
    min_delta: float = Field(0.0, ge=0, description="least change that counts, in the metric's own unit")


class EnergyConfig(Section):
    """Where the electricity comes from, and the models used where no counter can be read."""

    country: str | None = Field(None, pattern="^[A-Z]{3}$", description="ISO 3166 alpha-3; no place: no CO2 figure")
    region: str | None = Field(None, min_length=1, description="state, province or bidding zone of the country")
    cloud: str | None = Field(None, min_length=1, description="provider, instead of a country; with cloud_region")
    cloud_region: str | None = Field(None, min_length=1, description="the provider's name for where the machines are")
    pue: float = Field(1.0, ge=1, le=5, description="power usage effectiveness of the building; applied to CO2 only")
    cpu_idle_w: float = Field(0.74, ge=0, description="W of an idle logical core; a run is billed the cores it holds")
    cpu_busy_w: float = Field(2.76, ge=0, description="W more of a busy logical core")
    ram_w_per_gb: float = Field(0.392, ge=0, description="W per GB of resident memory")
    gpu_idle_w: float | None = Field(
        None, ge=0, description="W of an idle GPU, by `doctor --calibrate`; it only divides a GPU that trials share"
    )

    @property
    def place(self) -> dict[str, str | None]:
        """Where the electricity comes from, as the keyword arguments of `sbp_tune.energy.carbon.intensity`."""
        return {name: getattr(self, name) for name in ("country", "region", "cloud", "cloud_region")}

    @property
    def has_place(self) -> bool:
        """Whether CO2 can be told."""
        return self.country is not None or self.cloud is not None

    @model_validator(mode="after")
    def _one_place(self) -> EnergyConfig:
        if problem := place_problem(**self.place):
            raise ValueError(problem)
        return self


class TrainConfig(Section):
    """One training run."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    lr_schedule: LrScheduleConfig = LrScheduleConfig()
    sparsity: SparsityConfig = SparsityConfig()
    energy: EnergyConfig = EnergyConfig()
    epochs: int = Field(10, ge=1, description="planned epochs; schedules span these even with early stopping")
    seed: int = Field(0, ge=0, lt=2**32, description="of initialisation, data order and augmentation")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "fp32", description="bf16 and fp16 use autocast; auto: bf16 where the device computes in it, else fp32"
    )
    memory_format: Literal["auto", "contiguous", "channels_last"] = Field(
        "auto", description="of images, activations and filters; auto: channels_last, but on a GPU with fp32 contiguous"
    )
    tf32: bool | None = Field(
        None, description="GPU from Ampere on: products of fp32 in TF32; none: as torch, convolutions only"
    )
    cudnn_benchmark: bool = Field(
        False, description="GPU: cuDNN times its kernels and takes the fastest; a repeated run may differ in last bits"
    )
    compile: bool = Field(False, description="torch.compile of the network in training; compiling takes a minute")
    cuda_graphs: bool = Field(
        False, description="GPU: forward and backward pass of a step as CUDA graphs, where the estimator allows it"
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    early_stopping: EarlyStoppingConfig | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    cpu_threads: int | None = Field(None, ge=1, description="torch's threads; part of what makes a CPU run repeatable")

    @model_validator(mode="after")
    def _consistent(self) -> TrainConfig:
        if self.lr_schedule.warmup_epochs >= self.epochs:
            raise ValueError(
                f"lr_schedule.warmup_epochs: {self.lr_schedule.warmup_epochs}: must be below epochs ({self.epochs})"
            )
        if self.cuda_graphs and self.compile:
            raise ValueError("cuda_graphs: found true with compile: true; allowed: one of the two")
        optimizer = self.optimizer
        if optimizer.name == "sgd" and optimizer.nesterov and optimizer.momentum == 0:
            raise ValueError("optimizer.nesterov: found True with momentum 0; Nesterov's rule needs a momentum")
        return self


DECIDING_KEYS = tuple(f"sparsity.{key}" for key in DECIDING)
"""Dotted keys on which `is_meaningless` depends, the most far-reaching first."""


def is_meaningless(key: str, values: dict[str, Any]) -> bool:
    """Whether a dotted config key has no effect given the other values (flat, dotted)."""
    section, _, rest = key.partition(".")
    if section != "sparsity" or not rest:
        return False
    inner = {name.removeprefix("sparsity."): value for name, value in values.items() if name.startswith("sparsity.")}
    return has_no_effect(rest, inner)


PROVENANCE = "provenance"
"""Key of a config file under which `export` tells where it is from: no part of the config."""


def load_config(path: Path | str) -> TrainConfig:
    """Reads a config file, YAML or JSON; InputError lists every problem with the file and the dotted key."""
    data = read_yaml(path)
    if isinstance(data, dict):
        data.pop(PROVENANCE, None)
    return check_config(data, source=str(path))


def config_from_text(text: str, source: str = "config") -> TrainConfig:
    """As `load_config`, from YAML text."""
    return check_config(parse_yaml(text, source), source)


def check_config(data: Any, source: str, prefix: str = "") -> TrainConfig:
    """Plain data to a TrainConfig; InputError lines read 'source: prefix.key: problem'."""
    return validate(TrainConfig, data, source, prefix)


T = typing.TypeVar("T", bound=BaseModel)


def validate(model: type[T], data: Any, source: str, prefix: str = "") -> T:
    """Validates plain data; InputError holds one line per problem, each with its dotted key."""
    if not isinstance(data, dict):
        found = "nothing" if data is None else f"a {type(data).__name__}"
        raise InputError(f"{source}: {prefix or 'the file'}: found {found}, needs a mapping of keys to values")
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise InputError([f"{source}: {line}" for line in _problems(error, model, prefix)]) from error


def _problems(error: ValidationError, model: type[BaseModel], prefix: str) -> list[str]:
    lines = []
    for item in error.errors(include_url=False):
        loc = item["loc"]
        key = ".".join([prefix, *map(str, loc)] if prefix else map(str, loc))
        value = _short(item["input"])
        match item["type"]:
            case "extra_forbidden":
                names = _field_names(model, loc[:-1])
                text = f"{key}: unknown key{near(str(loc[-1]), names)}; allowed: {', '.join(names)}"
            case "missing":
                text = f"{key}: missing"
            case "value_error" if not loc:
                text = f"{prefix}.{item['ctx']['error']}" if prefix else str(item["ctx"]["error"])
            case "value_error":
                text = f"{key}: found {value}; {item['ctx']['error']}"
            case "literal_error":
                text = f"{key}: found {value}; allowed: {item['ctx']['expected']}"
            case _:
                text = f"{key}: found {value}; {item['msg'][0].lower()}{item['msg'][1:]}"
        lines.append(text)
    return lines


def _field_names(model: Any, path: tuple[Any, ...]) -> list[str]:
    """Keys allowed at a place of the config, found by walking the annotations."""
    for step in path:
        if isinstance(step, str) and hasattr(model, "model_fields") and step in model.model_fields:
            model = model.model_fields[step].annotation
        elif typing.get_origin(model) is dict:  # the step is one of its keys
            model = typing.get_args(model)[1]
        if typing.get_origin(model) in (typing.Union, types.UnionType):
            model = next((arm for arm in typing.get_args(model) if hasattr(arm, "model_fields")), None)
    return list(model.model_fields) if hasattr(model, "model_fields") else []


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
