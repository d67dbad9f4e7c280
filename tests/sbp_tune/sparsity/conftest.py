"""A small network with every kind of layer that an estimator meets, and batches for it."""

import copy

import pytest
import torch
from torch import nn

from sbp_tune.config import SparsityConfig
from sbp_tune.sparsity import sparsify


class BasicBlock(nn.Module):
    """A residual block, named and built as torchvision's."""

    def __init__(self, channels):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        self.conv2, self.bn2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)

    def forward(self, x):
        return torch.relu(x + self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))))


class Residual(nn.Module):
    """Grouped, depthwise, strided and dilated convolutions, a residual block, a shared layer, a linear head."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.block = BasicBlock(8)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.dilated = nn.Conv2d(8, 8, 3, padding=2, dilation=2)
        self.down = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.shared = nn.Linear(16, 16)
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        x = self.block(torch.relu(self.norm(self.stem(x))))
        x = x + self.depthwise(torch.relu(self.grouped(x)))
        x = torch.relu(self.down(torch.relu(self.dilated(x)))).mean((2, 3))
        return self.head(torch.relu(self.shared(torch.relu(self.shared(x)))))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Residual()


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(8, 3, 12, 12, generator=generator), torch.randint(0, 4, (8,), generator=generator)


def gradients_of(model, batch):
    """Gradients by name after one backward pass of the cross-entropy."""
    model.zero_grad(set_to_none=True)
    nn.functional.cross_entropy(model(batch[0]), batch[1]).backward()
    return {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}


@pytest.fixture
def gradients():
    """gradients(model, batch) -> dict; the model's running statistics are not moved."""

    def of(model, batch):
        state = copy.deepcopy(model.state_dict())
        result = gradients_of(model, batch)
        model.load_state_dict(state)
        return result

    return of


@pytest.fixture
def config_of():
    """config_of(estimator, p, **more): any estimator at one keep fraction, in blocks of 4 channels, nothing timed."""

    def of(estimator, p=0.5, **more):
        paced = {"tau": 1 / p - 1, "rho": p, "block": 4, "auto_dense": False}
        return SparsityConfig.model_validate({"estimator": estimator, "p0": p, **paced, **more})

    return of


@pytest.fixture
def attached(config_of):
    """attached(model, estimator, p, **more): a handle in its first epoch."""

    def attach(model, estimator, p=0.5, **more):
        handle = sparsify(model, config_of(estimator, p, **more))
        handle.start_epoch(0, 1)
        return handle

    return attach


@pytest.fixture
def train():
    """train(model, handle, batch): a few steps of a loop that every estimator can live in; the losses."""

    def run(model, handle, batch, epochs=range(3), steps=2, optimizer=None):
        images, labels = batch
        optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
        losses = []
        for epoch in epochs:
            handle.start_epoch(epoch, 4)
            for _ in range(steps):
                kept = handle.select(torch.arange(len(labels)))
                optimizer.zero_grad(set_to_none=True)
                each = nn.functional.cross_entropy(model(images[kept]), labels[kept], reduction="none")
                handle.record(kept, each)
                each.mean().backward()
                handle.before_step(optimizer)
                optimizer.step()
                losses.append(each.mean().item())
        return losses

    return run
