"""The one training loop of all classifiers: stages over sources of images, the best step chosen on validation.

Every batch is class-balanced, and within a class the source is drawn by the stage's shares. So the amount of synthetic
data changes neither the ratio of the classes nor, by itself, the weight of the synthetic images.

The network that is validated and returned is the moving average of the weights, with batch norm's statistics recomputed
on real images. The statistics gathered in training belong to other weights and to a mix of centres.
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
from metrics.classification import selection_score
from models.augmentation import traditional
from models.errors import ModelError
from models.generative import Precision, cpu_copy
from models.optimizer_state import load_optimizer_state, optimizer_state, with_prefix
from models.optimizers import SGD, AdamW
from models.patch_arrays import PatchArrays, to_float
from models.phases import AfterStep, StepDone
from models.predict import Normalise, normalised, predict, recompute_batch_norm
from models.random_streams import isolated_global_stream, torch_stream
from models.stages import BalancedDraws, Stage
from models.weight_average import update_average

Progress = Callable[[int, int], None]

# Images on which batch norm's statistics are recomputed: enough for means over positions, and too few to cost time.
_STATISTICS_IMAGES = 256


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
        default="best",
        description="best: step of the last stage with the highest validation AUPRC (of more than two classes their mean)",
    )
    validate_every: int = Field(default=20, ge=1)
    channels_last: bool = True


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
    after_step: AfterStep | None = None,
) -> ClassifierFit:
    """Train a classifier.

    Of several steps with the same AUPRC the latest is chosen. Validation images are never augmented.

    Args:
        network: trained in place; its final weights are not the chosen ones.
        sources: labelled images by name; the stages say how they are used.
        on_progress: called with (images drawn, images in all) at each validation.
        after_step: called after every step.

    Raises:
        ModelError: "class_missing", "unknown_source", "no_validation" or "diverged".
    """
    device = torch.device(device)
    memory_format = torch.channels_last if training.channels_last else torch.contiguous_format
    network.to(device).to(memory_format=memory_format)  # type: ignore[call-overload]
    if validation.labels is None or len(np.unique(validation.labels)) < 2:
        raise ModelError("no_validation", "choosing a classifier by AUPRC needs validation images of two classes")
    averaged = deepcopy(network)
    statistics = _statistics_images(sources, stages, training, seed)
    total, step = sum(stage.steps for stage in stages), 0
    history: dict[str, list] = {"step": [], "loss": [], "val_auprc": [], "stage": []}
    best = ClassifierFit({}, 0, -1.0, history)
    for number, stage in enumerate(stages):
        trainer = StageTrainer(
            network, averaged, BalancedDraws(sources, stage), stage, training, seed=seed, device=device,
            precision=precision, before=step, after_step=after_step,
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
            score = selection_score(validation.labels, probability)
            for key, value in zip(history, (here, mean_loss, score, stage.name), strict=True):
                history[key].append(value)
            if number == len(stages) - 1 and (score >= best.best_auprc if training.select == "best" else last):
                best = ClassifierFit(cpu_copy(averaged.state_dict()), here, score, history)
            if on_progress is not None:
                on_progress(here * training.batch_size, total * training.batch_size)
        step += stage.steps
    return best


class StageTrainer:
    """The steps of one stage. All that a step draws follows from (seed, step), so a stage can be interrupted anywhere.

    Args:
        averaged: a copy of the network that follows it as a moving average, or None.
        before: steps of earlier stages.
        penalty: added to the loss of every step, e.g. FedProx's proximal term.
        after_step: called after every step.

    Attributes:
        local: steps of this stage that are done.
        images: drawn until now, from all sources.
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
        penalty: Callable[[nn.Module], Tensor] | None = None,
        after_step: AfterStep | None = None,
    ):
        self.network, self.averaged, self.draws, self.stage, self.training = network, averaged, draws, stage, training
        self.seed, self.device, self.precision, self.penalty = seed, torch.device(device), precision, penalty
        self.before, self.local, self._after_step = before, 0, after_step
        self.optimizer = _optimizer(network, stage, training)

    @property
    def images(self) -> int:
        return (self.before + self.local) * self.training.batch_size

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
            self.local = local + 1
            if self._after_step is not None:
                self._after_step(StepDone(step + 1, self.images, {"loss": [loss.detach()]}))
        mean_loss = float(loss_sum) / steps
        if not math.isfinite(mean_loss):
            step = self.before + self.local
            raise ModelError("diverged", f"the loss is not finite at step {step}; lower the learning rate", step=step)
        return mean_loss

    def state(self) -> dict[str, Tensor]:
        """Everything the next step depends on, as copies on the CPU.

        Keys: "step" of this stage; "network.<name>"; "average.<name>"; "optimizer.<parameter number>.<name>".
        """
        state = {"step": torch.tensor(self.local)}
        state |= {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        if self.averaged is not None:
            state |= {f"average.{name}": tensor for name, tensor in self.averaged.state_dict().items()}
        moments = optimizer_state(self.optimizer, list(self.network.parameters()))
        return cpu_copy(state | {f"optimizer.{name}": tensor for name, tensor in moments.items()})

    def load_state(self, state: Mapping[str, Tensor], *, strict: bool = True) -> None:
        """Inverse of `state`. Without keys "optimizer.*" the optimizer starts anew.

        Args:
            strict: False leaves the networks as they are where `state` lacks them.
        """
        self.local = int(state["step"])
        self.network.load_state_dict(with_prefix(state, "network."), strict=strict)
        if self.averaged is not None:
            self.averaged.load_state_dict(with_prefix(state, "average."), strict=strict)
        moments = with_prefix(state, "optimizer.")
        load_optimizer_state(self.optimizer, list(self.network.parameters()), moments)


def _optimizer(network: nn.Module, stage: Stage, training: ClassifierTraining) -> torch.optim.Optimizer:
    if training.optimizer == "sgd":
        return SGD(
            network.parameters(),
            stage.learning_rate,
            momentum=training.momentum,
            weight_decay=training.weight_decay,
            fused=True,
        )
    return AdamW(network.parameters(), stage.learning_rate, weight_decay=training.weight_decay, fused=True)


def _cosine(step: int, steps: int) -> float:
    return 0.5 * (1 + math.cos(math.pi * step / steps))


def _statistics_images(
    sources: Mapping[str, PatchArrays], stages: Sequence[Stage], training: ClassifierTraining, seed: int
) -> Tensor | None:
    """Random images of the source for batch norm; None where no stage trains on it, for then it must not be seen."""
    name = training.batch_norm_on
    if name is None or not any(stage.shares.get(name) for stage in stages):
        return None
    source = sources[name]
    chosen = numpy_stream(seed, "statistics").permutation(len(source))[:_STATISTICS_IMAGES]
    return source.take(np.sort(chosen))
