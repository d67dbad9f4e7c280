"""What every estimator is: a rule for the part of the backward pass that is computed."""

from __future__ import annotations

import enum
from collections.abc import Hashable, Iterable
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sbp_tune.config import SparsityConfig
from sbp_tune.sparsity.compact_step import Selection
from sbp_tune.sparsity.layers import Layer
from sbp_tune.sparsity.products import Gradients, Products


class Mode(enum.Enum):
    """How a layer runs in this step."""

    DENSE = enum.auto()  # as without us
    SPARSE = enum.auto()  # its backward pass is `Estimator.backward`
    FIXED_WEIGHT = enum.auto()  # torch's own backward pass, without grad_weight
    NO_GRAPH = enum.auto()  # forward only: nothing flows back through it


class Estimator:
    """Dense unless a method is overridden.

    layers: those that may be sparse, in order of registration. p: keep fraction of this epoch or step;
    keep: p_l by layer name; both 1 before the first epoch.
    A selection is drawn by `draw` and then holds until the next, also over several backward passes
    (gradient accumulation). Whatever decides later gradients goes through `state_dict`, in tensors
    and plain values. Random choices come from `generator`, never from torch's global state: sparse
    and dense arms then see the same data order.
    """

    default_dense: ClassVar[tuple[str, ...]] = ("first", "last", "downsample")
    cuts_graph: ClassVar[bool] = False  # some modules run without a graph
    needs: ClassVar[Literal["products", "gradient", "nothing"]] = "products"  # of a layer that is to be sparse
    takes_parameters: ClassVar[bool] = False  # `include` may add biases, normalisation, ...: layers without products

    def __init__(self, model: nn.Module, layers: list[Layer], config: SparsityConfig, seed: int) -> None:
        self.model = model
        self.layers = layers
        self.config = config
        self.generator = torch.Generator().manual_seed(seed)
        self.p = 1.0
        self.keep: dict[str, float] = {}

    @property
    def steps_between_draws(self) -> int | Literal["epoch"]:
        return 1

    def start_epoch(self) -> None:
        """An epoch begins; its keep fractions are known."""

    def keep_of(self, layer: Layer) -> float:
        """p_l of a layer."""
        return self.keep.get(layer.name, 1.0)

    def draw(self) -> None:
        """Makes the selection for the coming steps."""

    def mode(self, layer: Layer) -> Mode:
        """How the layer runs until the next draw."""
        return Mode.DENSE

    def runs_without_graph(self, name: str) -> bool:
        """Whether a module with parameters of its own, such as a normalisation, runs as NO_GRAPH layers do."""
        return False

    def observes(self) -> bool:
        """Whether the coming step must be dense, for the estimator to see the whole network first."""
        return False

    def observe(self, flops: dict[str, int], order: list[str]) -> None:
        """FLOPs of one product by layer, and modules with parameters in the order in which they first ran."""

    def variant(self, layer: Layer) -> str:
        """What of its products a SPARSE layer computes now; each variant is timed once against dense."""
        return ""

    def is_timed(self, layer: Layer) -> bool:
        """Whether the present variant of a SPARSE layer should give way to dense where it is not faster."""
        return True

    def backward(self, layer: Layer, products: Products) -> Gradients:
        """grad_input and grad_weight of a SPARSE layer. May run more than once for the same products."""
        return products.dense()

    def graph_key(self, samples: int) -> Hashable | None:
        """What `draw` has decided of a step of so many samples: steps of one key run the same kernels.

        None where a step asks the device before it goes on, measures, or hardly ever repeats: such a step is not
        captured as a CUDA graph.
        """
        return None

    def notes(self) -> Any:
        """What the last backward pass left on the host for `before_step` and `selected`."""
        return None

    def take_notes(self, notes: Any) -> None:
        """The pass that gave these notes has run again, as a captured one."""

    def before_step(self, *optimizers: Optimizer) -> None:
        """Last look at the gradients before the optimizers use them."""

    def selected(self) -> dict[nn.Parameter, Selection]:
        """The parts that were selected, for partly selected weights; the optimizer must leave the rest alone."""
        return {}

    def skipped(self) -> Iterable[Tensor]:
        """Parameters whose gradient was not computed at all in this step."""
        return [layer.weight for layer in self.layers if self.mode(layer) is Mode.FIXED_WEIGHT]

    def select(self, indices: Tensor, losses: Tensor | None) -> Tensor:
        """Positions of the samples to train on."""
        return torch.arange(len(indices), device=indices.device)

    def record(self, indices: Tensor, losses: Tensor) -> None:
        """Takes the losses of samples just trained on."""

    def norm_share(self) -> float | None:
        """Share of the gradient's norm that was kept since the last call, where the estimator knows it."""
        return None

    def state_dict(self) -> dict[str, Any]:
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what `state_dict` gave."""
        self.generator.set_state(state["generator"])

    def random(self) -> float:
        """A number from [0, 1)."""
        return self.random_numbers(1)[0]

    def random_numbers(self, count: int) -> list[float]:
        """Independent numbers from [0, 1)."""
        numbers: list[float] = torch.rand(count, generator=self.generator, dtype=torch.float64).tolist()
        return numbers
