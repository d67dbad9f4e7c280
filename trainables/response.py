"""An analytic accuracy-energy response: what training a config might give, in microseconds and without torch.

It stands in for a real problem where a search itself is the subject: tests, benchmarks, `--simulate`. Its
shape is that of real runs, its constants are nobody's measurement. With n of T planned epochs over, p_t the keep
fraction of epoch t, and all of it without noise:

    learned  = n m (a + (1 - a) n / T)                    a = 0.6, or 1 with a constant learning rate
    m        = exp(-(ln(lr / lr*))^2 / 4)                 lr* = 0.1 (Adam: 0.001) x batch / 128
    accuracy = 0.1 + 0.85 (1 - (1 + learned)^-0.75) - d (u (1 - mean p)^2 + v (1 - last p)^2)
    d        = 1 - 0.3 slope + 0.3 slope^2 for the ramp profile, else 1

mean p and last p are those of all planned epochs, u and v the estimator's in ESTIMATORS: a run that keeps little
to its very end loses most. So accuracy grows with n and with p, and has its best slope at a half. An epoch costs
DENSE_EPOCH_KWH x the mean cost of its steps; a step is forward, grad_input and grad_weight, each a third, of
which an estimator computes some only in part, and a ranking comes on top.

Noise, all of it from the config and its seed: a normal offset of the run and one of each epoch, of 0.003 and 0.002
in accuracy and of 1 % and 2 % in energy and time (log-normal there, so that energy is positive). A test of the trained
network has the run's own offset in accuracy and a fresh one of 0.002. What has no effect in a config has none here.
Not in it: augmentation, the network and the data (one problem for all), divergence, early stopping, layers other than
by a ramp. An adaptive schedule stays at p0: nothing measures the norm here.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any, NamedTuple

import numpy as np

from sbp_tune.config import OptimizerConfig, SparsityConfig, TrainConfig
from sbp_tune.fingerprint import fingerprint
from sbp_tune.schedules import keep_fraction

CHANCE, CEILING, EXPONENT = 0.1, 0.95, 0.75
DENSE_EPOCH_KWH, DENSE_EPOCH_S, DENSE_EPOCH_TFLOP = 1e-3, 18.0, 20.0  # 200 W
RANKING = 0.16  # of a dense step
_PARTS = {"gpu": 0.8, "cpu": 0.15, "ram": 0.05}
_RUN_NOISE, _EPOCH_NOISE = {"accuracy": 0.003, "cost": 0.01}, {"accuracy": 0.002, "cost": 0.02}


class Estimator(NamedTuple):
    """What an estimator loses, and which of a step's three products it computes in part.

    mean, last: weights of (1 - mean p)^2 and (1 - last p)^2; partial: how many products shrink with p.
    """

    mean: float
    last: float
    partial: int


ESTIMATORS = {
    "dense": Estimator(0.0, 0.0, 0),
    "mask": Estimator(0.015, 0.015, 0),
    "batch_slice": Estimator(0.010, 0.015, 1),
    "grid": Estimator(0.012, 0.020, 1),
    "layer": Estimator(0.012, 0.018, 1),
    "channel_block": Estimator(0.015, 0.025, 1),
    "channel_topk": Estimator(0.012, 0.030, 1),
    "branch_drop": Estimator(0.020, 0.060, 2),
    "prefix": Estimator(0.050, 0.100, 2),
    "sample": Estimator(0.050, 0.120, 3),
    "variance": Estimator(0.012, 0.010, 1),
    "budget": Estimator(0.025, 0.060, 2),
}


def step_cost(sparsity: SparsityConfig, p: float) -> float:
    """Cost of a training step at keep fraction p, in dense steps (design: cost of a step)."""
    return _flops(sparsity, p) + (RANKING if sparsity.estimator == "mask" and p < 1 else 0.0)


def true_accuracy(config: TrainConfig, epoch: int) -> float:
    """Validation accuracy after so many of the planned epochs, without noise."""
    return _accuracy(config, epoch, _penalty(config.sparsity, keep_fractions(config)))


def true_kwh(config: TrainConfig, epoch: int) -> float:
    """kWh of so many epochs together, without noise."""
    return DENSE_EPOCH_KWH * math.fsum(step_cost(config.sparsity, p) for p in keep_fractions(config)[:epoch])


def keep_fractions(config: TrainConfig) -> list[float]:
    """Keep fraction of each planned epoch."""
    return [keep_fraction(config.sparsity, epoch, config.epochs) for epoch in range(config.epochs)]


def response(config: TrainConfig, noise: float = 1.0) -> list[dict[str, Any]]:
    """A row of results per planned epoch, in the columns of a real run; noise scales both kinds of it."""
    kept, sparsity = keep_fractions(config), config.sparsity
    random = _random(config)
    accuracy_noise, cost_noise = (
        noise * (_RUN_NOISE[kind] * random.standard_normal() + _EPOCH_NOISE[kind] * random.standard_normal(len(kept)))
        for kind in ("accuracy", "cost")
    )
    costs = np.array([step_cost(sparsity, p) for p in kept]) * np.exp(cost_noise)
    spent, computed = np.cumsum(costs), np.cumsum([_flops(sparsity, p) for p in kept])
    penalty, rows = _penalty(sparsity, kept), []
    for index, p in enumerate(kept):
        accuracy = min(1.0, max(0.0, _accuracy(config, index + 1, penalty) + float(accuracy_noise[index])))
        loss = _loss(accuracy)
        kwh, seconds = DENSE_EPOCH_KWH * float(spent[index]), DENSE_EPOCH_S * float(spent[index])
        rows.append(
            {
                "epoch": index + 1,
                "loss": loss,
                "lr": None,
                "keep_fraction": p,
                "tflop": DENSE_EPOCH_TFLOP * float(computed[index]),
                "peak_rss_gb": None,
                "peak_gpu_gb": None,
                "val_loss": loss,
                "val_accuracy": accuracy,
                **dict.fromkeys(("f1", "precision", "recall"), accuracy),
                "roc_auc": (1 + accuracy) / 2,
                "kwh": kwh,
                **{f"kwh_{name}": share * kwh for name, share in _PARTS.items()},
                "mean_power_w": kwh * 3.6e6 / seconds,
                "train_time_s": seconds,
                "epoch_time_s": DENSE_EPOCH_S * float(costs[index]),
                "gpu_util": None,
            }
        )
    return rows


def metrics_of_test(config: TrainConfig, noise: float = 1.0) -> dict[str, float]:
    """What a test after the last planned epoch gives, in the columns of a real one."""
    offset = _RUN_NOISE["accuracy"] * _random(config).standard_normal()  # the first number drawn there is the run's
    fresh = _EPOCH_NOISE["accuracy"] * _random(config, "test").standard_normal()
    accuracy = min(1.0, max(0.0, true_accuracy(config, config.epochs) + noise * float(offset + fresh)))
    values = {**dict.fromkeys(("accuracy", "f1", "precision", "recall"), accuracy), "roc_auc": (1 + accuracy) / 2}
    return {f"test_{name}": value for name, value in {**values, "loss": _loss(accuracy)}.items()}


def _accuracy(config: TrainConfig, epoch: int, penalty: float) -> float:
    anneal = 1.0 if config.lr_schedule.name == "constant" else 0.6
    learned = epoch * _lr_match(config) * (anneal + (1 - anneal) * epoch / config.epochs)
    gained = (CEILING - CHANCE) * (1 - (1 + learned) ** -EXPONENT)
    return max(0.0, CHANCE + gained - penalty)


def _flops(sparsity: SparsityConfig, p: float) -> float:
    partial = ESTIMATORS[sparsity.estimator].partial
    if sparsity.estimator in ("channel_block", "channel_topk") and sparsity.products == "both":
        partial = 2
    return (3 - partial + partial * p) / 3


def _lr_match(config: TrainConfig) -> float:
    optimizer: OptimizerConfig = config.optimizer
    best = (0.1 if optimizer.name == "sgd" else 0.001) * config.data.batch_size / 128
    return math.exp(-(math.log(optimizer.lr / best) ** 2) / 4)


def _penalty(sparsity: SparsityConfig, kept: list[float]) -> float:
    estimator, layers = ESTIMATORS[sparsity.estimator], sparsity.layers
    mean = math.fsum(kept) / len(kept)
    loss = estimator.mean * (1 - mean) ** 2 + estimator.last * (1 - kept[-1]) ** 2
    has_profile = layers.profile == "ramp" and sparsity.estimator not in ("prefix", "sample", "variance", "budget")
    return loss * (1 - 0.3 * layers.slope + 0.3 * layers.slope**2) if has_profile else loss


def _loss(accuracy: float) -> float:
    return math.log(1 / CHANCE) * (1 - accuracy) / (1 - CHANCE)


def _random(config: TrainConfig, purpose: str = "") -> np.random.Generator:
    """Numbers that follow from the config and its seed."""
    text = fingerprint(config.model_dump(mode="json")) + purpose
    return np.random.default_rng(np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint32))
