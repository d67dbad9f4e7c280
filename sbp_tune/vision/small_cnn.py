"""A small convolutional network for small images: seconds on a processor, and every part a real one has."""

from __future__ import annotations

from torch import Tensor, nn

from sbp_tune.errors import InputError


class SmallCNN(nn.Module):
    """Three 3x3 convolutions of width, 2 x width and 4 x width channels, then a linear layer.

    [N, channels, H, W] -> logits [N, num_classes], for any H and W of 4 pixels or more.
    """

    def __init__(self, num_classes: int, channels: int = 3, width: int = 16) -> None:
        super().__init__()
        if not isinstance(width, int) or width < 1:
            raise InputError(f"model.args.width: found {width!r}; allowed: a whole number of channels from 1")
        self.features = nn.Sequential(
            *_block(channels, width),
            nn.MaxPool2d(2),
            *_block(width, 2 * width),
            nn.MaxPool2d(2),
            *_block(2 * width, 4 * width),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.head = nn.Linear(4 * width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


def _block(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)  # BatchNorm has the bias
    return convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
