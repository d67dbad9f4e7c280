"""A network that asks for more memory than there is when it sees more than 32 images at once."""

import weakref

import torch
from torch import nn

activations = weakref.WeakSet()
"""Outputs of the first layer that are alive."""


class Hungry(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.hidden, self.out = nn.Linear(64, 16), nn.Linear(16, num_classes)

    def forward(self, x):
        hidden = self.hidden(x.flatten(1))
        activations.add(hidden)
        if len(x) > 32:
            torch.empty(2**50, dtype=torch.uint8)  # 1 PB: no machine has it, whatever it promises
        return self.out(hidden)
