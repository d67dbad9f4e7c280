"""Sparse backpropagation for any PyTorch model and training loop.

handle = sparsify(model, SparsityConfig(estimator="mask", p0=0.25))
for epoch in range(epochs):
    handle.start_epoch(epoch, epochs)
    for x, y in batches:
        loss(model(x), y).backward()
        handle.before_step(optimizer)
        optimizer.step()
handle.executed_flops, handle.keep_fraction
handle.remove()
"""

from sbp_tune.config import SparsityConfig
from sbp_tune.sparsity.handle import SparsityHandle, sparsify

__all__ = ["SparsityConfig", "SparsityHandle", "sparsify"]
