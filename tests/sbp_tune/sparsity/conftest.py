"""A small network with every kind of layer that an estimator meets, and batches for it."""

import copy

import pytest
import torch
from torch import nn


class Residual(nn.Module):
    """Grouped, depthwise, strided and dilated convolutions, a residual branch, a shared layer, a linear head."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.dilated = nn.Conv2d(8, 8, 3, padding=2, dilation=2)
        self.down = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.shared = nn.Linear(16, 16)
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x)))
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
