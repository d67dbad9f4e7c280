"""The residual network for small images: three stages of basic blocks."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from sbp_tune.errors import InputError


class SmallResNet(nn.Module):
    """A 3x3 stem, three stages of `blocks` basic blocks with width, 2 x width and 4 x width channels, a linear layer.

    [N, channels, H, W] -> logits [N, num_classes]. With width 16 it has 6 blocks + 2 layers: ResNet-20 of He et
    al. (2016, section 4.2) where blocks is 3, but for 1x1 convolutions in place of padding at the two shortcuts.
    """

    def __init__(self, num_classes: int, channels: int = 3, width: int = 16, blocks: int = 1) -> None:
        super().__init__()
        for key, value in (("width", width), ("blocks", blocks)):
            if not isinstance(value, int) or value < 1:
                raise InputError(f"model.args.{key}: found {value!r}; allowed: a whole number from 1")
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = _stage(width, width, blocks, stride=1)
        self.layer2 = _stage(width, 2 * width, blocks, stride=2)
        self.layer3 = _stage(2 * width, 4 * width, blocks, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(4 * width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(images)))
        return self.fc(self.avgpool(self.layer3(self.layer2(self.layer1(x)))).flatten(1))


def _stage(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
    shortcut = None
    if stride != 1 or inputs != outputs:
        shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
    first = BasicBlock(inputs, outputs, stride, shortcut)
    return nn.Sequential(first, *(BasicBlock(outputs, outputs) for _ in range(blocks - 1)))
