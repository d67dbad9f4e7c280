"""SparsityConfig: which part of the backward pass is computed, in which epoch, in which layer.

Not every key means something to every estimator: `has_no_effect` knows which, so that a search
never varies a key that changes nothing. A new key is a field here and a line in one of its tables.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from sbp_tune.section import KeepFraction, Section, plugin


def _joined(value: Any, prefix: str = "") -> Any:
    """Nested mappings to dotted keys: a study file's `layer4: {"*": 0.1}` is the glob `layer4.*`."""
    if not isinstance(value, dict):
        return value
    flat: dict[Any, Any] = {}
    for key, item in value.items():
        dotted = f"{prefix}{key}"
        flat.update(_joined(item, f"{dotted}.") if isinstance(item, dict) else {dotted: item})
    return flat


def _whole_keys(value: Any) -> Any:
    """Epochs as whole numbers; a dotted key has brought them as text."""
    if not isinstance(value, dict):
        return value
    return {int(key) if isinstance(key, str) and key.isdecimal() else key: item for key, item in value.items()}


Epoch = Annotated[int, Field(ge=0)]
ByLayer = BeforeValidator(_joined)


class LayersConfig(Section):
    """How the keep fraction p of an epoch is shared out among the layers, as p_l."""

    profile: Literal["uniform", "ramp", "stages", "flops"] = Field(
        "uniform",
        description="uniform: p_l = p; ramp: p_l rises or falls with depth; stages: a multiplier for each stage; "
        "flops: p_l of the sparse layers so small that, with the dense ones, the fraction p of all FLOPs is kept",
    )
    slope: float = Field(0.0, ge=-1, le=1, description="ramp: p_l = p (1 + slope (2 d - 1)), depth d from 0 to 1")
    stages: Annotated[dict[str, Annotated[float, Field(gt=0, le=100)]], ByLayer] = Field(
        default_factory=dict, description="stages: multiplier of p by module or glob, such as {layer1: 2, layer4: 0.5}"
    )
    overrides: Annotated[dict[str, KeepFraction], ByLayer] = Field(
        default_factory=dict, description="p_l itself by glob of layer names; a later one wins"
    )


class SparsityConfig(Section):
    """Which part of the backward pass is computed (design: estimator), and how it changes over the epochs."""

    estimator: Annotated[str, plugin("sparsity/estimators")] = "dense"

    schedule: Literal["constant", "linear", "exponential", "cosine", "step", "increasing", "interleave", "adaptive"] = (
        "constant"
    )
    p0: KeepFraction = Field(1.0, description="keep fraction at epoch 0 of the sparse phase")
    k: float | None = Field(
        None, ge=0, description="linear: p0 - k t, exponential: p0 exp(-k t); none: p_min in the last planned epoch"
    )
    p_min: KeepFraction = Field(0.05, description="floor of the keep fraction; where increasing starts")
    per: Literal["epoch", "step"] = Field("epoch", description="how often p changes")
    steps: Annotated[dict[Epoch, KeepFraction], BeforeValidator(_whole_keys)] = Field(
        default_factory=dict, description="step: keep fraction from an epoch of the sparse phase on, p0 before"
    )
    dense_every: int = Field(2, ge=2, description="interleave: every so many epochs one is dense")
    norm_share: float = Field(
        0.9, gt=0, lt=1, description="adaptive: share of the gradient's norm to keep; p follows from epoch to epoch"
    )
    warmup_dense: float = Field(0.0, ge=0, le=1, description="fraction of the training that is dense at its start")
    dense_tail: float = Field(0.0, ge=0, le=1, description="fraction of the training that is dense at its end")
    layers: LayersConfig = Field(LayersConfig(), description="how p is shared out among the layers")

    exclude: tuple[str, ...] = Field(
        (), strict=False, description="globs of layers that stay dense, beside those that do by default"
    )
    include: tuple[str, ...] = Field(
        (),
        strict=False,
        description="globs of layers that become sparse, though by default they would not; mask, layer: of biases, "
        "normalisation and other parameters too, where a glob matches no layer, such as '*.bias'",
    )
    state: Literal["freeze", "zero_grad"] = Field(
        "freeze",
        description="of weights that were not selected; freeze: neither they nor their optimizer state move; "
        "zero_grad: their gradient is zero, as in the papers, and momentum or decay may still move them",
    )
    auto_dense: bool = Field(
        True, description="time each layer once on its real shapes; where sparse is not faster it stays dense"
    )
    reselect_every: Annotated[int, Field(ge=1)] | Literal["epoch"] = Field(
        1, description="optimizer steps between selections; mask then ranks a running mean"
    )

    scope: Literal["layer", "global"] = Field("layer", description="mask: ranked in each layer, or among all weights")
    min_per_layer: float = Field(
        0.0, ge=0, lt=1, description="mask, global: fraction of each layer kept anyway; 0: a layer may starve"
    )
    score: Literal["abs_grad", "grad_squared", "abs_weight_grad"] = Field(
        "abs_grad", description="mask: what is ranked"
    )

    select: Literal["cyclic", "random", "norm"] = Field(
        "cyclic", description="which layer or channel block comes next; norm: by running mean of gradient norms"
    )
    exploration: float = Field(
        0.1, ge=0, le=1, description="norm: chance of a random choice; sample: share for those not seen for longest"
    )
    scaled: bool = Field(
        False, description="divide by the probability of selection: unbiased, at a larger variance; not with norm"
    )
    products: Literal["weights", "both"] = Field(
        "weights", description="channels are left out of grad_weight alone (grad_input exact), or of both products"
    )
    block: int = Field(
        16, ge=1, le=4096, description="channels are kept in multiples of this; kernels run in blocks of 16"
    )

    tau: float = Field(
        0.5, ge=0, le=1000, description="variance: added variance allowed, in units of the gradient's own"
    )
    probe_every: int = Field(100, ge=1, description="variance: steps between measurements")
    rho: KeepFraction = Field(0.5, description="budget: fraction of the time of the dense backward pass and optimizer")

    @model_validator(mode="after")
    def _consistent(self) -> SparsityConfig:
        if self.warmup_dense + self.dense_tail > 1:
            raise ValueError(
                f"warmup_dense: found {self.warmup_dense:g} with dense_tail {self.dense_tail:g}; together at most 1"
            )
        if self.schedule == "step" and not self.steps:
            raise ValueError("steps: found none; the step schedule needs them, such as {10: 0.5, 20: 0.25}")
        if self.schedule == "adaptive" and self.estimator not in (*SEES_ALL, "dense"):
            raise ValueError(
                f"schedule: found 'adaptive' with {self.estimator}; needs an estimator that sees the whole gradient: "
                f"{', '.join(SEES_ALL)}"
            )
        return self


SEES_ALL = ("channel_topk", "mask")
"""Estimators that know the share of the gradient's norm that they keep."""

_SELF_PACED = ("budget", "variance")
_USED_BY: dict[str, tuple[str, ...]] = {
    "scope": ("mask",),
    "min_per_layer": ("mask",),
    "score": ("mask",),
    "reselect_every": ("channel_block", "layer", "mask"),
    "select": ("channel_block", "layer"),
    "exploration": ("channel_block", "layer", "sample"),
    "scaled": ("channel_block", "layer"),
    "products": ("channel_block", "channel_topk"),
    "block": ("channel_block", "channel_topk"),
    "auto_dense": ("batch_slice", "channel_block", "channel_topk", "grid", "variance"),
    "tau": ("variance",),
    "probe_every": ("variance",),
    "rho": ("budget",),
}
_NOT_USED_BY: dict[str, tuple[str, ...]] = {
    "state": ("batch_slice", "grid", "sample", "variance"),  # every weight has a gradient
    "layers": ("prefix", "sample", *_SELF_PACED),
    "exclude": ("sample",),
    "include": ("sample",),
    **dict.fromkeys(("schedule", "p0", "k", "p_min", "per", "steps", "dense_every", "norm_share"), _SELF_PACED),
}
_USED_WHEN: dict[str, tuple[str, tuple[Any, ...]]] = {
    "k": ("schedule", ("linear", "exponential")),
    "p_min": ("schedule", ("linear", "exponential", "cosine", "increasing", "adaptive")),
    "steps": ("schedule", ("step",)),
    "dense_every": ("schedule", ("interleave",)),
    "norm_share": ("schedule", ("adaptive",)),
    "per": ("schedule", ("linear", "exponential", "cosine", "increasing")),
    "min_per_layer": ("scope", ("global",)),
    "scaled": ("select", ("cyclic", "random")),
    "layers.slope": ("layers.profile", ("ramp",)),
    "layers.stages": ("layers.profile", ("stages",)),
}


DECIDING = (
    "estimator",
    *dict.fromkeys(decider for decider, _ in _USED_WHEN.values()),
)
"""Keys on which it depends whether others have an effect, the estimator first."""


def has_no_effect(key: str, values: dict[str, Any]) -> bool:
    """Whether a key of SparsityConfig changes nothing, given the others (flat, dotted, without `sparsity.`)."""
    estimator = values.get("estimator", "dense")
    if key == "estimator":
        return False
    if estimator == "dense":
        return True
    name = key.split(".")[0]
    if estimator not in _USED_BY.get(name, (estimator,)) or estimator in _NOT_USED_BY.get(name, ()):
        return True
    if name == "exploration" and estimator != "sample" and values.get("select", "cyclic") != "norm":
        return True
    if name == "layers" and estimator == "mask" and values.get("scope", "layer") == "global":
        return True  # one ranking of all weights has one p
    decider, needed = _USED_WHEN.get(".".join(key.split(".")[:2]), (None, ()))
    return decider is not None and values.get(decider, _default(decider)) not in needed


def _default(key: str) -> Any:
    section: Any = SparsityConfig
    *parents, leaf = key.split(".")
    for parent in parents:
        section = section.model_fields[parent].annotation
    return section.model_fields[leaf].default
