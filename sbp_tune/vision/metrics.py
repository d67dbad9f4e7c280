"""Classification metrics of one pass over a split, accumulated on the device."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassAUROC,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MulticlassPrecision,
    MulticlassRecall,
)

_SCALARS = ("accuracy", "f1", "precision", "recall")


class ClassificationMetrics:
    """Accuracy, macro F1, precision, recall and ROC AUC, cross-entropy and the confusion matrix.

    A class without true or predicted images is left out of the macro means of F1, precision and recall; a
    class that is not in the labels, or alone in them, has no ROC AUC and is left out of that mean. NaN in
    any logit makes every value NaN, so that a diverged run is never ranked.
    """

    def __init__(self, num_classes: int, device: torch.device | str) -> None:
        self._device = torch.device(device)
        options: dict[str, Any] = {
            "num_classes": num_classes,
            "validate_args": False,
        }  # validation would wait for the device
        self._metrics = MetricCollection(
            {
                "accuracy": MulticlassAccuracy(average="micro", **options),
                "f1": MulticlassF1Score(average="macro", **options),
                "precision": MulticlassPrecision(average="macro", **options),
                "recall": MulticlassRecall(average="macro", **options),
                "roc_auc": MulticlassAUROC(average=None, thresholds=None, **options),
                "confusion": MulticlassConfusionMatrix(**options),
            }
        ).to(self._device)
        self.reset()

    def reset(self) -> None:
        """Forgets all batches."""
        self._metrics.reset()
        self._loss_sum = torch.zeros((), dtype=torch.float64, device=self._device)
        self._count = 0

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Adds a batch: logits [N, K] of any float type, labels int64 [N]; does not wait for the device."""
        logits = logits.detach().float()
        self._loss_sum += F.cross_entropy(logits, labels, reduction="sum").double()
        self._count += len(labels)
        self._metrics.update(logits.softmax(dim=1), labels)

    def compute(self) -> dict[str, float]:
        """accuracy, f1, precision, recall, roc_auc (one against the rest) in [0, 1], loss in nats.

        All NaN before the first batch and where a logit was NaN.
        """
        loss = (self._loss_sum / self._count).item() if self._count else math.nan
        if math.isnan(loss):
            return dict.fromkeys((*_SCALARS, "roc_auc", "loss"), math.nan)
        with warnings.catch_warnings():  # torchmetrics warns once for every absent class
            warnings.simplefilter("ignore")
            values = self._metrics.compute()
        support = values["confusion"].sum(dim=1)
        defined = (support > 0) & (support < self._count)
        result = {name: values[name].item() for name in _SCALARS}
        return result | {"roc_auc": values["roc_auc"][defined].mean().item(), "loss": loss}

    def confusion(self) -> Tensor:
        """Counts int64 [K, K] on the device: rows are true classes, columns predicted ones."""
        return self._metrics["confusion"].compute()
