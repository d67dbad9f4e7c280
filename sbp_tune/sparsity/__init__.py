"""Sparse backpropagation for any PyTorch model and training loop.

    handle = sparsify(model, SparsityConfig(estimator="channel_block", p0=0.25))
    for epoch in range(epochs):
        handle.start_epoch(epoch, epochs)
        for x, y in batches:
            optimizer.zero_grad()
            loss(model(x), y).backward()
            handle.before_step(optimizer)     # after clipping and a GradScaler's unscale_
            optimizer.step()
    handle.executed_flops, handle.keep_fraction, handle.dense_layers
    handle.remove()

The `sample` estimator chooses among the samples of a batch, and so needs two more lines (see its file).

`torch.compile`, before or after `sparsify`: each layer is one operator of the graph that decides at run time,
so selections never compile anything anew and results are those of eager. Only the estimators that run modules
without a graph (`branch_drop`, `prefix`, `budget`) break the graph at every module with parameters: right, but
little is gained.

Sparse layers cannot be differentiated twice (`create_graph=True`) and do not work under `torch.func`. Activation
checkpointing works; the three estimators just named need `use_reentrant=False`. Layers whose weight is computed
(weight or spectral norm), shared with another module, or used without a call (attention's `out_proj`), transposed
convolutions and layers with a forward of their own stay dense where the estimator needs a layer's two products;
`mask` takes all of them that have a weight of their own, `branch_drop` and `prefix` all. `handle.dense_layers`
lists them. A model takes one handle at a time; copies and pickles of it are ordinary dense models.
torch's fused SGD wants the momentum of all weights to begin in the same step, as with `layer` and `branch_drop` it
does not: take `foreach`. Optimizers with factored or blockwise state (Adafactor, 8-bit) need `state: zero_grad` where
weights are selected in part; `optimizer.step(closure)` with `before_step` in the closure needs it too.
DistributedDataParallel: the same seed on all ranks and, where weights or branches are skipped,
`find_unused_parameters=True`; sparsify the model before wrapping it. DataParallel does not work.
"""

from functools import partial

from torch import nn

from sbp_tune.config import SparsityConfig
from sbp_tune.schedules import keep_fraction
from sbp_tune.sparsity.handle import Schedule, SparsityHandle


def sparsify(
    model: nn.Module, config: SparsityConfig, seed: int = 0, schedule: Schedule | None = None
) -> SparsityHandle:
    """Attaches the estimator that the config names; the model's state_dict keys stay as they are.

    seed: of the estimator's random choices; the same on all ranks of a distributed run. schedule: p(t)
    by your own function, in place of the config's. InputError where config and model do not fit.
    """
    return SparsityHandle(model, config, seed, schedule or partial(keep_fraction, config))


__all__ = ["Schedule", "SparsityConfig", "SparsityHandle", "sparsify"]
