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
Under `torch.compile` every convolution and linear layer runs eagerly between compiled graphs: right,
but little is gained. Sparse layers cannot be differentiated twice and do not work under `torch.func`.
DistributedDataParallel: the same seed on all ranks and, where weights or branches are skipped,
`find_unused_parameters=True`; sparsify the model before wrapping it.
"""

from sbp_tune.config import SparsityConfig
from sbp_tune.sparsity.handle import SparsityHandle, sparsify

__all__ = ["SparsityConfig", "SparsityHandle", "sparsify"]
