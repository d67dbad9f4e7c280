"""What everybody writes: torchvision's ImageFolder, transforms per image, a DataLoader, a loop.

After PyTorch's own example (github.com/pytorch/examples, imagenet/main.py): transforms in worker processes, loss and
accuracy read back in every step. Kinder than it in one point: its workers live from epoch to epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from sbp_tune.config import OptimizerConfig


class PlainLoop:
    """A network trained on class folders below `root` (train, val), images of one size.

    fast: with autocast in bfloat16 and channels-last, as the performance guides of PyTorch say.
    """

    def __init__(
        self,
        model: nn.Module,
        root: Path,
        optimizer: OptimizerConfig,
        *,
        batch_size: int,
        image_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device,
        workers: int,
        fast: bool,
    ) -> None:
        self._layout = torch.channels_last if fast else torch.contiguous_format
        self.model, self._device, self._fast = model.to(device), device, fast
        self.model.to(memory_format=self._layout)
        self._criterion = nn.CrossEntropyLoss().to(device)
        self._optimizer = torch.optim.SGD(
            model.parameters(), optimizer.lr, momentum=optimizer.momentum, weight_decay=optimizer.weight_decay
        )
        shared = [transforms.ToTensor(), transforms.Normalize(mean, std)]
        augmented = [transforms.RandomCrop(image_size, padding=image_size // 8), transforms.RandomHorizontalFlip()]
        options = {"num_workers": workers, "pin_memory": device.type == "cuda", "persistent_workers": workers > 0}
        train = datasets.ImageFolder(str(root / "train"), transforms.Compose([*augmented, *shared]))
        val = datasets.ImageFolder(str(root / "val"), transforms.Compose(shared))
        self._train = DataLoader(train, batch_size, shuffle=True, **options)
        self._val = DataLoader(val, batch_size, shuffle=False, **options)

    def set_lr(self, lr: float) -> None:
        """The learning rate from now on."""
        for group in self._optimizer.param_groups:
            group["lr"] = lr

    def train_epoch(self) -> float:
        """One pass over the training images; mean loss."""
        self.model.train()
        losses, hits, count = 0.0, 0.0, 0
        for images, target in self._train:
            images, target = self._on_device(images), target.to(self._device, non_blocking=True)
            with self._autocast():
                output = self.model(images)
                loss = self._criterion(output, target)
            losses += loss.item() * len(images)
            hits += _hits(output, target)
            count += len(images)
            self._optimizer.zero_grad()
            loss.backward()
            self._optimizer.step()
        return losses / count

    def validate(self) -> float:
        """Accuracy on the validation images."""
        self.model.eval()
        losses, hits, count = 0.0, 0.0, 0
        with torch.no_grad():
            for images, target in self._val:
                images, target = self._on_device(images), target.to(self._device, non_blocking=True)
                with self._autocast():
                    output = self.model(images)
                    losses += self._criterion(output, target).item() * len(images)
                hits += _hits(output, target)
                count += len(images)
        return hits / count

    def _on_device(self, images: Tensor) -> Tensor:
        return images.to(self._device, non_blocking=True, memory_format=self._layout)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self._fast)


def _hits(output: Tensor, target: Tensor) -> float:
    return float((output.argmax(1) == target).sum().item())
