"""One training run, epoch by epoch: one config in, one row of results per epoch out. Knows no Ray.

Everything random in epoch t follows from (seed, t) alone: initialisation, data order, augmentation
and dropout. A run that resumes from a checkpoint therefore continues bit for bit, and all arms of a
comparison share initialisation and data order.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from sbp_tune.config import TrainConfig
from sbp_tune.cuda_graphs import StepGraphs, recorder_for
from sbp_tune.energy import EnergyMeter
from sbp_tune.energy.devices import cpu_name, nvml_uuid
from sbp_tune.energy.records import Reason
from sbp_tune.errors import DataError, InputError, SbpTuneError
from sbp_tune.host_memory import keep_freed_memory, return_freed_memory
from sbp_tune.memory import peak_memory_gb, reset_peak_memory, says_what_does_not_fit
from sbp_tune.numerics import compiled, resolve_device, resolved_memory_format, resolved_precision, set_kernels
from sbp_tune.optimizers import build_optimizer, lr_factor
from sbp_tune.patience import Patience
from sbp_tune.sparsity import sparsify
from sbp_tune.trial_energy import RunMeter, TrialEnergy
from sbp_tune.vision import ClassificationMetrics, augment, build_model, jitter, load_dataset, normalize, scaled
from sbp_tune.vision.data import Split

_RESIDENT_SHARE = 0.1  # of a GPU's free memory that the images of a split may take


class Training:
    """A run of one TrainConfig: `run_epoch()` until `finished`, then perhaps `test()`.

    meter: from the UUIDs of the run's GPUs, what meters it; by default it meters itself.
    """

    @says_what_does_not_fit
    def __init__(self, config: TrainConfig, meter: Callable[[list[str]], RunMeter] | None = None) -> None:
        self.config = config
        self.device = resolve_device(config.device)
        if config.cpu_threads is not None:
            torch.set_num_threads(config.cpu_threads)
        set_kernels(config.tf32, config.cudnn_benchmark)
        if self._on_gpu:
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            keep_freed_memory()
        try:
            self.data = load_dataset(config.data)
        except InputError as error:
            raise DataError(error.problems) from error
        self.train_split, self.val_split = self._resident(self.data.train), self._resident(self.data.val)
        self._mean, self._std = (torch.tensor(values, device=self.device) for values in (self.data.mean, self.data.std))
        self._reseed("init")
        sample = self.data.train.images
        self.model = build_model(config.model, self.data.num_classes, sample.shape[1], sample.shape[-1])
        self.precision = resolved_precision(config.precision, self.device)
        self.memory_format = resolved_memory_format(config.memory_format, self.device, self.precision, self.model)
        self.model.to(self.device).to(memory_format=self.memory_format)
        self.optimizer = build_optimizer(self.model, config.optimizer)
        self.sparsity = sparsify(self.model, config.sparsity, seed=config.seed)
        self._compiled: Callable[[Tensor], Tensor] = compiled(self.model) if config.compile else self.model
        recorder = recorder_for(self.device) if config.cuda_graphs else None
        self._graphs = recorder and StepGraphs(
            self._eager_forward, self._eager_backward, self.model, self.sparsity, recorder
        )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")
        self.epoch = 0  # epochs finished
        self.finished = False
        self._patience = Patience(config.early_stopping)
        self._diverged = False
        self._flops_are_complete: bool | None = None  # not known before the first batch
        self._peaks: dict[str, float | None] = {"peak_rss_gb": 0.0, "peak_gpu_gb": None}
        reset_peak_memory()
        self._energy = TrialEnergy(config.energy, (meter or self._own_meter)(self._gpu_uuids()), self._synchronize)

    @property
    def _on_gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def device_name(self) -> str:
        """Name of the GPU, or of the processor: energies of unlike ones do not compare."""
        return torch.cuda.get_device_name(self.device) if self._on_gpu else cpu_name()

    @says_what_does_not_fit
    def run_epoch(self, validate: bool = True) -> dict[str, Any]:
        """Trains and validates one epoch; its row, with energies and times summed over all epochs so far.

        validate: False leaves out what only watches: the row then has no metric of the validation split, and a
        config with early stopping validates anyway.
        After an epoch whose loss was no longer a number, SbpTuneError: its row, with what it cost, came first.
        OutOfMemory where the device has not enough; the run is then over.
        """
        if self._diverged:
            raise SbpTuneError(f"diverged: the training loss was no longer a number in epoch {self.epoch}")
        with self._energy.epoch(self.epoch + 1):
            with self._graphs.active() if self._graphs else nullcontext():
                loss, lr = self._train()
            validation = self.evaluate(self.val_split) if validate or self.config.early_stopping else {}
        self.epoch += 1
        self._diverged = not math.isfinite(loss)
        is_last = self.epoch >= self.config.epochs or self._patience.ends_with(validation)
        self.finished = is_last and not self._diverged
        self._update_peaks()
        if self.finished:
            self._energy.stop("finished")  # what comes now, a test perhaps, is not the training's
        return {
            "epoch": self.epoch,
            "loss": loss,
            "lr": lr,
            "keep_fraction": self.sparsity.keep_fraction,
            "tflop": self.sparsity.executed_flops / 1e12 if self._flops_are_complete else None,
            "device": self.device_name,
            **({"gpu_uuid": " ".join(self._gpu_uuids())} if self._on_gpu else {}),
            **self._peaks,
            "fully_trained": self.finished,
            **validation,
            **self._energy.row(),
        }

    def evaluate(self, split: Split) -> dict[str, float]:
        """Metrics of the model on a split, under the names of the table's columns."""
        values = self._score(split).compute()
        return {
            "val_loss": values["loss"],
            "val_accuracy": values["accuracy"],
            **{name: values[name] for name in ("f1", "precision", "recall", "roc_auc")},
        }

    @says_what_does_not_fit
    def test(self) -> tuple[dict[str, float], Tensor]:
        """Metrics on the test split under `test_...`, and the confusion matrix [classes, classes]."""
        metrics = self._score(self.data.test)
        return {f"test_{name}": value for name, value in metrics.compute().items()}, metrics.confusion()

    def state_dict(self) -> dict[str, Any]:
        """All that later epochs depend on, in tensors and plain values."""
        return {
            "epoch": self.epoch,
            "finished": self.finished,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "sparsity": self.sparsity.state_dict(),
            "scaler": self.scaler.state_dict(),
            "early_stopping": self._patience.state,
            "energy": self._energy.state_dict(),
            "peaks": dict(self._peaks),
            "diverged": self._diverged,
            "flops_are_complete": self._flops_are_complete,  # else the next batch would be one that is not compiled
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues where `state_dict` was taken."""
        self.epoch = state["epoch"]
        self.finished = state["finished"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.sparsity.load_state_dict(state["sparsity"])
        self.scaler.load_state_dict(state["scaler"])
        self._patience.state = state["early_stopping"]
        self._energy.load_state_dict(state["energy"])
        self._peaks = dict(state["peaks"])
        self._diverged = state["diverged"]
        self._flops_are_complete = state["flops_are_complete"]

    def close(self, reason: Reason = "stopped") -> None:
        """Gives back what outlives the object: the meter and the hooks on the model. reason: of an unfinished run."""
        self._energy.stop(reason)
        self.sparsity.remove()
        self._graphs = None  # with the memory that they hold
        return_freed_memory()

    def _train(self) -> tuple[float, float]:
        """One pass over the training images; mean loss and the learning rate of the last step."""
        config = self.config
        seed = self._reseed("epoch")
        order = torch.randperm(len(self.data.train), generator=torch.Generator().manual_seed(seed))
        augmenting = torch.Generator(self.device).manual_seed(seed)
        batches = list(order.split(config.data.batch_size))
        if len(batches) > 1 and len(batches[-1]) == 1:
            batches.pop()  # what is left over: batch normalisation has no variance of one image
        self.sparsity.start_epoch(self.epoch, config.epochs, steps=len(batches))
        self.model.train()
        total, count = torch.zeros((), device=self.device), 0
        for step, whole in enumerate(batches):
            lr = config.optimizer.lr * lr_factor(config.lr_schedule, self.epoch, config.epochs, step, len(batches))
            for group in self.optimizer.param_groups:
                group["lr"] = lr
            batch = whole[self.sparsity.select(whole)]
            x, y = self._batch(batch, augmenting)
            losses = self._forward(x, y)
            self.sparsity.record(batch, losses)
            self._backward(losses)
            self._update()
            total += losses.detach().sum()
            count += len(batch)
        return float(total) / count, lr

    # The four parts of a step, each a method: `profiling` times them from outside, and costs nothing where it is off.

    def _batch(self, batch: Tensor, augmenting: torch.Generator) -> tuple[Tensor, Tensor]:
        """What the model takes of the training images at `batch` [N], and their labels."""
        split = self.train_split
        if split.images.is_cuda:
            batch = self._sent(batch)
        return self._inputs(split.images[batch], augmenting), self._sent(split.labels[batch])

    def _forward(self, x: Tensor, y: Tensor) -> Tensor:
        """The loss of each image."""
        forward = self._graphs.forward if self._graphs else self._eager_forward
        return forward(x, y)

    def _eager_forward(self, x: Tensor, y: Tensor) -> Tensor:
        with self._autocast():
            return functional.cross_entropy(
                self._logits(x), y, label_smoothing=self.config.label_smoothing, reduction="none"
            )

    def _backward(self, losses: Tensor) -> None:
        backward = self._graphs.backward if self._graphs else self._eager_backward
        backward(losses)

    def _eager_backward(self, losses: Tensor) -> None:
        self.scaler.scale(losses.mean()).backward()

    def _update(self) -> None:
        self.scaler.unscale_(self.optimizer)
        self.sparsity.before_step(self.optimizer)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)

    def _logits(self, x: Tensor) -> Tensor:
        """The model's output; at the first batch also whether all its products are ones that we count."""
        if self._flops_are_complete is None:
            before = self.sparsity.executed_flops
            with FlopCounterMode(display=False) as everything:
                logits: Tensor = self.model(x)
            self._flops_are_complete = everything.get_total_flops() == self.sparsity.executed_flops - before
            return logits
        return self._compiled(x)

    @torch.inference_mode()
    def _score(self, split: Split) -> ClassificationMetrics:
        self.model.eval()
        metrics = ClassificationMetrics(self.data.num_classes, self.device)
        # A pass without gradients holds one layer's activations at a time: larger batches fit.
        for images, labels in zip(
            split.images.split(2 * self.config.data.batch_size),
            split.labels.split(2 * self.config.data.batch_size),
            strict=True,
        ):
            with self._autocast():
                logits = self.model(self._inputs(images))
            metrics.update(logits.float(), self._sent(labels))
        return metrics

    def _inputs(self, images: Tensor, augmenting: torch.Generator | None = None) -> Tensor:
        """What the model takes of uint8 images; augmented by a generator where one is given."""
        how, inputs = self.config.data.augment, scaled(self._sent(images))
        if augmenting is not None:
            inputs = jitter(inputs, how, augmenting)
        if self.config.data.normalize == "standard":
            inputs = normalize(inputs, self._mean, self._std)
        if augmenting is not None:
            inputs = augment(inputs, how, augmenting)
        return inputs.contiguous(memory_format=self.memory_format)

    def _sent(self, tensor: Tensor) -> Tensor:
        """On the device. From pinned memory the copy is queued like any other work: nothing waits for it."""
        if not self._on_gpu or tensor.is_cuda:
            return tensor
        return tensor.pin_memory().to(self.device, non_blocking=True)

    def _resident(self, split: Split) -> Split:
        """The split on the GPU where it is small beside the free memory, so that no step sends images."""
        if not self._on_gpu:
            return split
        free, _ = torch.cuda.mem_get_info(self.device)
        if split.images.numel() > _RESIDENT_SHARE * free:
            return split
        return Split(split.images.to(self.device), split.labels.to(self.device))

    def _autocast(self) -> torch.autocast:
        dtype = torch.float16 if self.precision == "fp16" else torch.bfloat16
        return torch.autocast(self.device.type, dtype, enabled=self.precision != "fp32")

    def _reseed(self, purpose: str) -> int:
        """Seeds torch for the model's init or for an epoch; the same in every arm, however often resumed."""
        text = f"{self.config.seed}/{purpose}/{self.epoch if purpose == 'epoch' else 0}"
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
        torch.manual_seed(seed)
        return seed

    def _synchronize(self) -> None:
        if self._on_gpu:
            torch.cuda.synchronize(self.device)

    def _own_meter(self, gpus: list[str]) -> RunMeter:
        return EnergyMeter.from_config(self.config.energy, gpus=gpus, cpus=self.config.cpu_threads)

    def _gpu_uuids(self) -> list[str]:
        return [nvml_uuid(torch.cuda.get_device_properties(self.device).uuid)] if self._on_gpu else []

    def _peaks_now(self) -> dict[str, float | None]:
        gpu = torch.cuda.max_memory_allocated(self.device) / 1e9 if self._on_gpu else None
        return {"peak_rss_gb": peak_memory_gb(), "peak_gpu_gb": gpu}

    def _update_peaks(self) -> None:
        for name, value in self._peaks_now().items():
            earlier = self._peaks[name]  # of an attempt before
            self._peaks[name] = value if value is None or earlier is None else max(value, earlier)
