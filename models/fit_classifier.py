"""The one training loop of all classifiers: stages over sources of images, the best step chosen on validation.

Every batch is class-balanced, and within a class the source is drawn by the stage's shares. So the amount of synthetic
data changes neither the ratio of the classes nor, by itself, the weight of the synthetic images.

The network that is validated and returned is the moving average of the weights, with batch norm statistics recomputed
on real images: those gathered in training belong to other weights and to a mix of centres.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from basics.seeds import numpy_stream, step_seed
from models.augmentation import traditional
from models.errors import ModelError
from models.generative import Precision
from models.patch_arrays import PatchArrays, to_float
from models.random_streams import isolated_global_stream, torch_stream
from models.weight_average import update_average

Progress = Callable[[int, int], None]
Normalise = Literal["none", "per_patch"]

_PREDICT_BATCH = 256
# Images on which batch norm statistics are recomputed: enough for means over positions, too few to cost time.
_STATISTICS_IMAGES, _STATISTICS_BATCH = 256, 64


class ClassifierTraining(BaseModel):
    """How a classifier is trained; field names are YAML keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = Field(default=2e-3, gt=0, description="of a first stage")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="of sgd")
    weight_decay: float = Field(default=0.05, ge=0)
    schedule: Literal["cosine", "constant"] = Field(default="cosine", description="of the learning rate within a stage")
    batch_size: int = Field(default=64, ge=2)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    ema: float | None = Field(
        default=0.99, gt=0, lt=1, description="decay of the averaged weights that are validated and kept"
    )
    batch_norm_on: str | None = Field(
        default="real", description="source on whose images batch norm statistics are recomputed"
    )
    augmentation: Literal["none", "traditional"] = "traditional"
    normalise: Normalise = Field(
        default="none", description="per_patch: mean 0 and deviation 1 for every image, also when predicting"
    )
    select: Literal["best", "last"] = Field(
        default="best", description="best: step of the last stage with the highest validation AUPRC"
    )
    validate_every: int = Field(default=20, ge=1)
    channels_last: bool = True


@dataclass(frozen=True)
class Stage:
    """A part of training with its own sources and its own optimizer.

    Attributes:
        shares: weight of each source; they compete within a class, among the sources that have images of it.
    """

    name: str
    steps: int
    learning_rate: float
    shares: Mapping[str, float]


@dataclass
class ClassifierFit:
    """The chosen classifier.

    Attributes:
        state: its state dict, on the CPU.
        history: one entry per validation: "step" (over all stages), "loss" (mean since the last entry), "val_auprc",
            "stage".
        best_step, best_auprc: where it was chosen.
    """

    state: dict[str, Tensor]
    best_step: int
    best_auprc: float
    history: dict[str, list] = field(default_factory=dict)


def fit_classifier(
    network: nn.Module,
    sources: Mapping[str, PatchArrays],
    stages: Sequence[Stage],
    validation: PatchArrays,
    training: ClassifierTraining,
    *,
    seed: int,
    device: torch.device | str = "cpu",
    precision: Precision = "fp32",
    on_progress: Progress | None = None,
) -> ClassifierFit:
    """Train a classifier.

    Equal AUPRC of several steps: the latest is taken. Validation images are never augmented.

    Args:
        network: trained in place; its final weights are not the chosen ones.
        sources: labelled images by name; the stages say how they are used.
        on_progress: called with (steps done, steps in all) at each validation.

    Raises:
        ModelError: "class_missing", "unknown_source", "no_validation" or "diverged".
    """
    device = torch.device(device)
    memory_format = torch.channels_last if training.channels_last else torch.contiguous_format
    network.to(device).to(memory_format=memory_format)  # type: ignore[call-overload]
    if validation.labels is None or len(np.unique(validation.labels)) < 2:
        raise ModelError(
            "no_validation", "validation images of both classes are needed to choose a classifier by AUPRC"
        )
    averaged = deepcopy(network)
    statistics = _statistics_images(sources, stages, training, seed)
    total, step = sum(stage.steps for stage in stages), 0
    history: dict[str, list] = {"step": [], "loss": [], "val_auprc": [], "stage": []}
    best = ClassifierFit({}, 0, -1.0, history)
    for number, stage in enumerate(stages):
        trainer = StageTrainer(
            network, averaged, BalancedDraws(sources, stage), stage, training, seed=seed, device=device,
            precision=precision, before=step,
        )  # fmt: skip
        while trainer.local < stage.steps:
            # To the next multiple of `validate_every` over all stages, or to the stage's end.
            to_next = training.validate_every - (step + trainer.local) % training.validate_every
            mean_loss = trainer.advance(min(to_next, stage.steps - trainer.local))
            last, here = trainer.local == stage.steps, step + trainer.local
            recompute_batch_norm(averaged, statistics, training.normalise, precision)
            probability = predict(
                averaged, validation, device=device, precision=precision, normalise=training.normalise
            )
            auprc = average_precision(validation.labels, probability[:, 1])
            for key, value in zip(history, (here, mean_loss, auprc, stage.name), strict=True):
                history[key].append(value)
            if number == len(stages) - 1 and (auprc >= best.best_auprc if training.select == "best" else last):
                best = ClassifierFit(_cpu_copy(averaged), here, auprc, history)
            if on_progress is not None:
                on_progress(here, total)
        step += stage.steps
    return best


class StageTrainer:
    """The steps of one stage. All that a step draws follows from (seed, step), so a stage can be cut anywhere.

    Args:
        averaged: a copy of the network that follows it as a moving average; None for none.
        before: steps of earlier stages.
        local: steps of this stage that were done elsewhere.
        penalty: added to the loss of every step, e.g. FedProx's proximal term.
    """

    def __init__(
        self,
        network: nn.Module,
        averaged: nn.Module | None,
        draws: BalancedDraws,
        stage: Stage,
        training: ClassifierTraining,
        *,
        seed: int,
        device: torch.device | str,
        precision: Precision,
        before: int = 0,
        local: int = 0,
        penalty: Callable[[nn.Module], Tensor] | None = None,
    ):
        self.network, self.averaged, self.draws, self.stage, self.training = network, averaged, draws, stage, training
        self.seed, self.device, self.precision, self.penalty = seed, torch.device(device), precision, penalty
        self.before, self.local = before, local
        self.optimizer = _optimizer(network, stage, training)

    def advance(self, steps: int) -> float:
        """Train for some steps; returns their mean loss.

        Raises:
            ModelError: "diverged".
        """
        training, stage, network = self.training, self.stage, self.network
        memory_format = torch.channels_last if training.channels_last else torch.contiguous_format
        loss_sum = torch.zeros((), device=self.device)
        for local in range(self.local, self.local + steps):
            step = self.before + local
            images, labels = self.draws.batch(training.batch_size, numpy_stream(self.seed, "draw", step))
            images = to_float(images.to(self.device, memory_format=memory_format))
            if training.augmentation == "traditional":
                images = traditional(images, torch_stream(self.seed, "augment", step))
            images, labels = normalised(images, training.normalise), labels.to(self.device)
            network.train()
            with isolated_global_stream(step_seed(self.seed, "dropout", step), self.device):
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
                    logits = network(images)
                loss = cross_entropy(logits.float(), labels, label_smoothing=training.label_smoothing)
                if self.penalty is not None:
                    loss = loss + self.penalty(network)
                self.optimizer.zero_grad(set_to_none=True)
                loss.backward()
            for group in self.optimizer.param_groups:
                group["lr"] = stage.learning_rate * (
                    _cosine(local, stage.steps) if training.schedule == "cosine" else 1.0
                )
            self.optimizer.step()
            if self.averaged is not None:
                update_average(self.averaged, network, training.ema or 0.0, local)
            loss_sum = loss_sum + loss.detach()
        self.local += steps
        mean_loss = float(loss_sum) / steps
        if not math.isfinite(mean_loss):
            step = self.before + self.local
            raise ModelError("diverged", f"the loss is not finite at step {step}; lower the learning rate", step=step)
        return mean_loss


class BalancedDraws:
    """Class-balanced batches from several sources; draws are with replacement.

    Raises:
        ModelError: "unknown_source", or "class_missing" where no source with a share has images of a class.
    """

    def __init__(self, sources: Mapping[str, PatchArrays], stage: Stage, num_classes: int = 2):
        unknown = sorted(set(stage.shares) - set(sources))
        if unknown:
            raise ModelError(
                "unknown_source", f"stage {stage.name!r} draws from {unknown[0]!r}; there is only {', '.join(sources)}"
            )
        self._sources = [sources[name] for name in stage.shares]
        # By class: for each source its positions of that class, and the cumulative shares of the sources.
        self._positions: list[list[np.ndarray]] = []
        self._cumulative: list[np.ndarray] = []
        for label in range(num_classes):
            positions = [np.flatnonzero(source.labels == label) for source in self._sources]
            shares = np.array(
                [share if len(p) else 0.0 for share, p in zip(stage.shares.values(), positions, strict=True)]
            )
            if shares.sum() <= 0:
                raise ModelError(
                    "class_missing", f"stage {stage.name!r} has no image of class {label} to draw", label=label
                )
            self._positions.append(positions)
            self._cumulative.append(np.cumsum(shares / shares.sum()))

    def batch(self, size: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """uint8 images (size, channels, height, width) and int64 labels (size,), on the CPU."""
        classes = len(self._positions)
        # An odd size gives the extra image to a class drawn at random.
        labels = (np.arange(size) + rng.integers(classes)) % classes
        which, place = rng.random(size), rng.random(size)
        origin, position = np.empty(size, dtype=np.int64), np.empty(size, dtype=np.int64)
        for label in range(classes):
            for i in np.flatnonzero(labels == label):
                cumulative = self._cumulative[label]
                s = min(int(np.searchsorted(cumulative, which[i], side="right")), len(cumulative) - 1)
                own = self._positions[label][s]
                origin[i], position[i] = s, own[int(place[i] * len(own))]
        images = torch.empty(size, *self._sources[0].pixels.shape[1:], dtype=torch.uint8)
        for s, source in enumerate(self._sources):
            mine = origin == s
            if mine.any():
                images[torch.from_numpy(mine)] = source.take(position[mine])
        return images, torch.from_numpy(labels)


@torch.inference_mode()
def predict(
    network: nn.Module,
    patches: PatchArrays,
    *,
    device: torch.device | str = "cpu",
    precision: Precision = "fp32",
    normalise: Normalise = "none",
) -> np.ndarray:
    """Class probabilities, float64 (n, num_classes), in the order of the patches' rows."""
    device = torch.device(device)
    network.to(device).eval()
    parts = []
    for start in range(0, len(patches), _PREDICT_BATCH):
        images = patches.take(np.arange(start, min(start + _PREDICT_BATCH, len(patches))))
        images = normalised(to_float(images.to(device, memory_format=torch.channels_last)), normalise)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            logits = network(images)
        parts.append(logits.double().softmax(dim=1).cpu())
    return torch.cat(parts).numpy() if parts else np.empty((0, 2))


def normalised(images: Tensor, how: Normalise) -> Tensor:
    """As they are, or every image brought to mean 0 and deviation 1 over all its values (a flat one stays at 0)."""
    if how == "none":
        return images
    deviation, mean = torch.std_mean(images, dim=(1, 2, 3), keepdim=True)
    return (images - mean) / deviation.clamp_min(1e-3)


@torch.no_grad()
def recompute_batch_norm(network: nn.Module, images: Tensor | None, normalise: Normalise, precision: Precision) -> None:
    """Set batch norm's running statistics to plain means over the images (uint8); with None they stay as they are."""
    layers = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if images is None or not layers:
        return
    device = next(network.parameters()).device
    momenta = [layer.momentum for layer in layers]
    network.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # cumulative mean
        layer.train()
    for part in images.split(_STATISTICS_BATCH):
        part = normalised(to_float(part.to(device, memory_format=torch.channels_last)), normalise)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            network(part)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
        layer.eval()


def average_precision(labels: np.ndarray, scores: np.ndarray) -> float:
    """Area under the precision-recall curve as a sum of precision x step of recall; equal scores are one threshold."""
    order = np.argsort(-scores, kind="stable")
    positives = np.cumsum(labels[order] == 1)
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    precision, recall = positives[ends] / (ends + 1), positives[ends] / positives[-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def _optimizer(network: nn.Module, stage: Stage, training: ClassifierTraining) -> torch.optim.Optimizer:
    if training.optimizer == "sgd":
        return torch.optim.SGD(
            network.parameters(),
            stage.learning_rate,
            momentum=training.momentum,
            weight_decay=training.weight_decay,
            fused=True,
        )
    return torch.optim.AdamW(network.parameters(), stage.learning_rate, weight_decay=training.weight_decay, fused=True)


def _cosine(step: int, steps: int) -> float:
    return 0.5 * (1 + math.cos(math.pi * step / steps))


def _statistics_images(
    sources: Mapping[str, PatchArrays], stages: Sequence[Stage], training: ClassifierTraining, seed: int
) -> Tensor | None:
    """A random part of the source for batch norm; None where no stage trains on it: then it may not be seen."""
    name = training.batch_norm_on
    if name is None or not any(stage.shares.get(name) for stage in stages):
        return None
    source = sources[name]
    chosen = numpy_stream(seed, "statistics").permutation(len(source))[:_STATISTICS_IMAGES]
    return source.take(np.sort(chosen))


def _cpu_copy(network: nn.Module) -> dict[str, Tensor]:
    state = network.state_dict()
    return {name: t.detach().cpu().clone(memory_format=torch.contiguous_format) for name, t in state.items()}
