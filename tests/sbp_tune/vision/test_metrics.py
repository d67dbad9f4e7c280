from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from sbp_tune.vision import ClassificationMetrics


def random_batches(count: int, classes: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.cat([torch.arange(classes), torch.randint(classes, (count - classes,), generator=generator)])
    logits = 2 * torch.randn(count, classes, generator=generator)
    logits[torch.arange(count), labels] += 1.5
    return logits, labels


def measured(logits: torch.Tensor, labels: torch.Tensor, classes: int, batch: int = 64) -> ClassificationMetrics:
    metrics = ClassificationMetrics(classes, "cpu")
    for part, truth in zip(logits.split(batch), labels.split(batch), strict=True):
        metrics.update(part, truth)
    return metrics


@pytest.mark.parametrize("classes", [2, 5, 120])
def test_values_are_those_of_scikit_learn(classes: int) -> None:
    logits, labels = random_batches(500, classes)
    metrics = measured(logits, labels, classes)
    truth, predicted = labels.numpy(), logits.argmax(1).numpy()
    scores = logits.double().softmax(1).numpy()
    expected = {
        "accuracy": sk.accuracy_score(truth, predicted),
        "f1": sk.f1_score(truth, predicted, average="macro"),
        "precision": sk.precision_score(truth, predicted, average="macro", zero_division=0),
        "recall": sk.recall_score(truth, predicted, average="macro"),
        "roc_auc": np.mean([sk.roc_auc_score(truth == k, scores[:, k]) for k in range(classes)]),
        "loss": sk.log_loss(truth, scores),
    }
    assert metrics.compute() == pytest.approx(expected, abs=1e-5)
    assert (metrics.confusion().numpy() == sk.confusion_matrix(truth, predicted)).all()
    assert metrics.confusion().dtype == torch.int64


def test_batch_size_changes_nothing() -> None:
    logits, labels = random_batches(300, 4)
    logits.clamp_(0, 1)  # scores that already look like probabilities are logits all the same
    small, large = (measured(logits, labels, 4, batch).compute() for batch in (7, 300))
    assert small == pytest.approx(large, abs=1e-6)


def test_reset_forgets_all() -> None:
    logits, labels = random_batches(100, 3)
    metrics = measured(logits, labels, 3)
    first = metrics.compute()
    metrics.reset()
    metrics.update(*random_batches(50, 3, seed=1))
    assert metrics.compute() != first and metrics.confusion().sum() == 50
    metrics.reset()
    metrics.update(logits, labels)
    assert metrics.compute() == pytest.approx(first)


def test_half_precision_logits_are_accepted() -> None:
    logits, labels = random_batches(100, 3)
    assert measured(logits.half(), labels, 3).compute() == pytest.approx(
        measured(logits, labels, 3).compute(), abs=0.01
    )


def test_one_nan_logit_makes_every_value_nan_and_does_not_stay() -> None:
    logits, labels = random_batches(100, 3)
    broken = logits.clone()
    broken[40, 1] = math.nan
    metrics = measured(broken, labels, 3)
    values = metrics.compute()
    assert set(values) == {"accuracy", "f1", "precision", "recall", "roc_auc", "loss"}
    assert all(math.isnan(value) for value in values.values())
    assert metrics.confusion().sum() == 100
    metrics.reset()
    metrics.update(logits, labels)
    assert not any(math.isnan(value) for value in metrics.compute().values())


def test_nothing_measured_is_nan() -> None:
    assert all(math.isnan(value) for value in ClassificationMetrics(3, "cpu").compute().values())


def test_absent_classes_leave_the_means_alone_and_warn_of_nothing() -> None:
    logits, labels = random_batches(200, 3)
    wider = torch.cat([logits, torch.full((200, 2), -50.0)], dim=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values = measured(wider, labels, 5).compute()
    assert values == pytest.approx(measured(logits, labels, 3).compute(), abs=1e-5)


def test_one_class_alone_has_no_roc_auc() -> None:
    logits, _ = random_batches(20, 2)
    values = measured(logits, torch.zeros(20, dtype=torch.int64), 2).compute()
    assert math.isnan(values["roc_auc"]) and not math.isnan(values["accuracy"])
