"""A centre's half of a GAN whose generator is on the server: its discriminator's training steps, and the gradients that leave.

The generator's half is `generator`, the exchange between them `server`.

Longer than most files, because both exchanges share one job.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from federation.wire.transport import Transport, decode, encode, relative_error
from models import GenerativeTrainer, GeneratorSpec, ModelError, PatchArrays, Phase, Precision
from models.federated_parts import averaged_state, load_averaged
from models.phases import Batch, Logs, backpropagate
from models.random_streams import torch_stream
from strategies import terms
from strategies.bodies import Body, Compute, OfTask, OnState
from strategies.cells import MEMORY
from strategies.centre_side import CentreSide, as_arrays, introduction, labels_in, training_patches
from strategies.dm_gan.phases import adversarial_phases, build_gan
from strategies.dm_gan.sizes import FAKE, images_layout
from strategies.fedavg_gan.local import COURSE_FIELDS, statistics_of
from strategies.kind import Answer, Array, Arrays, Field, Kind, Layout, Received, Sent, Start, Uses
from strategies.layouts import encoded, network_layouts, prefixed
from strategies.one_shot import card_fields

GENERATOR, GRADIENT, DISCRIMINATOR = "generator.", "gradient.", "discriminator."
_SCALE = "scale."
_SWAPPED = "a discriminator"
# Of a trainer's state, what is the server's. What the model holds beside its networks stays here.
_NOT_KEPT = ("model.networks.generator.", "model.average.", "optimizer.generator")
Exchanged = Literal["images", "generator"]


class GradientRules(Body):
    """What is done to gradients before they leave a centre.

    Attributes:
        clip: largest L2 norm of one image's gradient (exchange images), or of the whole (exchange generator).
        noise: standard deviation of Gaussian noise, as a multiple of `clip`.
    """

    clip: float | None = None
    noise: float = 0.0


class Discriminate(OfTask, OnState):
    """Arguments of `work`.

    Attributes:
        version: of the generator whose images, or weights, these are.
        from_step: local steps before.
        batches: training steps of the discriminator in this job.
        labels: of the centre's classes, which take turns in the batches of both sides.
        gradients: what is done to gradients before they leave.
        send_discriminator: whether it goes to another centre.
        swap_every: updates after which discriminators change places; None: they never do.
        discriminator_of: the centre whose discriminator this job brings; empty: none.
        signature: of that centre.
    """

    generator: GeneratorSpec
    build_seed: int
    seed: int
    compute: Compute
    version: int
    from_step: int
    batches: int
    labels: tuple[int, ...]
    exchange: Exchanged
    gradients: GradientRules
    transport: Transport
    introduce: bool
    send_discriminator: bool
    swap_every: int | None
    discriminator_of: str
    signature: str

    def swap_after(self, update: int) -> list[Any]:
        """Which change of places, of which federation: that which is due after so many updates."""
        return [self.federation, update // (self.swap_every or 1)]


def work(here: CentreSide, body: Discriminate, arrays: Arrays, state: Arrays) -> tuple[Answer, Arrays]:
    """A job of this centre's own discriminator."""
    spec, compute = body.generator, body.compute
    own = training_patches(here, body, spec.labels)
    if spec.conditional and tuple(labels_in(own)) != body.labels:
        # The server makes its images of the classes that it was told of.
        raise ModelError(
            "other_classes", f"this centre has labels {labels_in(own)}, not {list(body.labels)} as it told"
        )
    ours = {n: a for n, a in arrays.items() if n.startswith(DISCRIMINATOR)}
    if ours:
        here.verify(body.discriminator_of, _SWAPPED, body.swap_after(body.version), ours, body.signature)
    received = decode({n: a for n, a in arrays.items() if n not in ours}, body.transport) | ours
    gradients, kept, discriminator, facts = discriminator_steps(
        spec, as_arrays(own), received, state, exchange=body.exchange, rules=body.gradients, build_seed=body.build_seed,
        seed=body.seed, from_step=body.from_step, batches=body.batches, **compute.options,
        noise_seed=secrets.randbits(62) if here.deployed else None, on_progress=here.progress(),
    )  # fmt: skip
    sent = encode_gradients(gradients, body.transport)
    answer = facts | {"transport_error": relative_error(gradients, decode_gradients(sent, body.transport))}
    answer |= introduction(here, body, own, wanted=body.introduce)
    if body.send_discriminator:
        own_weights = {DISCRIMINATOR + name: array for name, array in discriminator.items()}
        answer["signature"] = here.sign(_SWAPPED, body.swap_after(body.version + 1), own_weights)
        sent |= own_weights
    return (answer, sent), kept


def discriminator_steps(
    spec: GeneratorSpec,
    patches: PatchArrays,
    received: Mapping[str, np.ndarray],
    state: Mapping[str, np.ndarray],
    *,
    exchange: Exchanged,
    rules: GradientRules,
    build_seed: int,
    seed: int,
    from_step: int,
    batches: int,
    device: str,
    precision: Precision,
    noise_seed: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[Arrays, Arrays, Arrays, dict[str, Any]]:
    """A centre's job: train its discriminator, and say in which direction the images would be better.

    Args:
        received: "fake.<phase>" images (batches * repeats, n, c, h, w) of each phase, or "generator.<name>" weights;
            "discriminator.<name>" where another centre's takes the place of this one's.
        state: discriminator and optimizer of the job before; empty in the first.
        noise_seed: of the noise on gradients; a deployed node draws one that nobody else knows.

    Returns:
        gradients: "images" float32 (batches, n, c, h, w), or by name of the generator's parameters, means over batches.
        state: what is kept.
        discriminator: its weights, for `md_gan`.
        facts: scalars of the training.
    """
    model = build_gan(spec, build_seed)
    discriminating, generating = adversarial_phases(model)
    collected: list[dict[str, Tensor]] = []
    if exchange == "images":
        images = {name.removeprefix(FAKE): array for name, array in received.items() if name.startswith(FAKE)}
        phases = [_with_fakes(phase, images[phase.name]) for phase in discriminating]
        phases.append(_image_gradients(generating, images[generating.name], collected))
    else:
        phases = [*discriminating, _weight_gradients(generating, collected)]
    training = spec.training.without_average()
    trainer = GenerativeTrainer(model, training, seed=seed, device=device, precision=precision, phases=phases)
    if state:
        trainer.load_state({name: torch.from_numpy(np.array(array)) for name, array in state.items()}, strict=False)
    for prefix, network in ((GENERATOR, "generator"), (DISCRIMINATOR, "discriminator")):
        weights = {
            n.removeprefix(prefix): torch.from_numpy(np.array(a)) for n, a in received.items() if n.startswith(prefix)
        }
        if weights:
            load_averaged(model.networks[network], weights)
    trainer.step = from_step
    fit = trainer.advance(patches, from_step + batches, on_progress)
    if exchange == "images":
        gradients = {"images": np.stack([one["images"].numpy() for one in collected])}
    else:
        gradients = {name: torch.stack([one[name] for one in collected]).mean(0).numpy() for name in collected[0]}
    gradients = protected(gradients, rules, seed if noise_seed is None else noise_seed, from_step)
    kept = {
        name: tensor.numpy() for name, tensor in trainer.state().items()
        if not name.startswith(_NOT_KEPT)
    }  # fmt: skip
    own = {name: t.numpy() for name, t in averaged_state(model.networks["discriminator"]).items()}
    scalars = {name: float(np.nanmean(values)) for name, values in fit.scalars.items()}
    return gradients, kept, own, {"scalars": scalars}


def protected(gradients: Mapping[str, np.ndarray], rules: GradientRules, seed: int, step: int) -> Arrays:
    """Gradients as they may leave: clipped to a norm, with noise. Of a seed that the server knows, noise protects nothing."""
    if rules.clip is None:
        return dict(gradients)
    if "images" in gradients:
        images = gradients["images"]
        norms = np.sqrt((images.astype(np.float64) ** 2).sum(axis=(2, 3, 4), keepdims=True))
        clipped = {"images": images * np.minimum(1.0, rules.clip / np.maximum(norms, 1e-30))}
    else:
        norm = math.sqrt(sum(float((array.astype(np.float64) ** 2).sum()) for array in gradients.values()))
        clipped = {name: array * min(1.0, rules.clip / max(norm, 1e-30)) for name, array in gradients.items()}
    rng = torch_stream(seed, "gradient noise", step)
    out = {}
    for name, array in clipped.items():
        noise = torch.randn(array.shape, generator=rng).numpy() * (rules.noise * rules.clip) if rules.noise else 0.0
        out[name] = (array + noise).astype(np.float32)
    return out


def _with_fakes(phase: Phase, images: np.ndarray) -> Phase:
    """The phase on images that were made elsewhere, in the order in which it is run."""
    waiting = iter(images)

    def loss(batch: Batch, rng: torch.Generator) -> tuple[Tensor, Logs]:
        return phase.loss(replace(batch, fake=_next_fake(waiting, batch)), rng)

    return replace(phase, loss=loss, losses="its generated images are made elsewhere")


def _image_gradients(phase: Phase, images: np.ndarray, collected: list[dict[str, Tensor]]) -> Phase:
    """Takes the loss's gradient with respect to images made elsewhere, and steps nothing."""
    waiting = iter(images)

    def gradients(_: Phase, network: nn.Module, batch: Batch, rng: torch.Generator) -> tuple[Tensor, Logs]:
        fake = _next_fake(waiting, batch).requires_grad_()
        loss, logs = phase.weighted_loss(replace(batch, fake=fake), rng)
        (gradient,) = torch.autograd.grad(loss, fake)
        collected.append({"images": gradient.float().cpu().contiguous()})
        return loss.detach(), logs

    return replace(phase, gradients=gradients)


def _weight_gradients(phase: Phase, collected: list[dict[str, Tensor]]) -> Phase:
    """Takes the loss's gradient with respect to the generator's weights, and steps nothing."""

    def gradients(_: Phase, network: nn.Module, batch: Batch, rng: torch.Generator) -> tuple[Tensor, Logs]:
        loss, logs = backpropagate(phase, network, batch, rng)
        found = {}
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, "every weight of a generator has a gradient"
            found[name] = parameter.grad.float().cpu().clone(memory_format=torch.contiguous_format)
            parameter.grad = None
        collected.append(found)
        return loss, logs

    return replace(phase, gradients=gradients)


def _next_fake(waiting: Iterator[np.ndarray], batch: Batch) -> Tensor:
    fake = torch.from_numpy(np.array(next(waiting), dtype=np.float32))
    device = batch.real().device
    return fake.to(device, memory_format=torch.channels_last)


def encode_gradients(gradients: Mapping[str, np.ndarray], how: Transport) -> Arrays:
    """Gradients as they travel; smaller formats get them scaled to 1, below which halves of 1e-5 would vanish."""
    if how == "fp32":
        return {GRADIENT + name: array for name, array in gradients.items()}
    scales = {name: np.float32(max(float(np.abs(array).max(initial=0.0)), 1e-30)) for name, array in gradients.items()}
    scaled = encode({name: array / scales[name] for name, array in gradients.items()}, how)
    return {GRADIENT + name: array for name, array in scaled.items()} | {
        _SCALE + name: np.asarray(scale) for name, scale in scales.items()
    }


def decode_gradients(arrays: Mapping[str, np.ndarray], how: Transport) -> Arrays:
    """Inverse of `encode_gradients`, up to rounding.

    Raises:
        KeyError, ValueError: scales are missing, or do not belong to their arrays.
    """
    plain = decode({n.removeprefix(GRADIENT): a for n, a in arrays.items() if n.startswith(GRADIENT)}, how)
    for name, array in plain.items():
        if not np.issubdtype(array.dtype, np.floating):
            raise ValueError(f"gradient {name!r} is {array.dtype} and came without its scales")
    return {name: array if how == "fp32" else array * arrays[_SCALE + name] for name, array in plain.items()}


# -- kind --------------------------------------------------------------------------------------------------------------


def _gradients(body: Discriminate) -> Layout:
    spec = body.generator
    if body.exchange == "images":
        shape = (body.batches, spec.training.batch_size, *spec.shape)
        plain = {"images": Array(shape, "float32")}
    else:
        plain = dict(network_layouts(spec, "generator")[1])
    found = prefixed(encoded(plain, body.transport), GRADIENT)
    return found if body.transport == "fp32" else {**found, **{_SCALE + name: Array((), "float32") for name in plain}}


def _received(body: Discriminate) -> Layout:
    if body.exchange == "images":
        return images_layout(body.generator, body.batches, body.transport)
    return encoded(prefixed(network_layouts(body.generator, "generator")[0], GENERATOR), body.transport)


def _discriminator(body: Discriminate) -> Layout:
    return prefixed(network_layouts(body.generator, "discriminator")[0], DISCRIMINATOR)


def _received_generator(body: Discriminate, arrays: Arrays) -> Arrays:
    plain = decode({n: a for n, a in arrays.items() if n.startswith(GENERATOR)}, body.transport)
    return {name.removeprefix(GENERATOR): array for name, array in plain.items()}


def _initial_generator(body: Discriminate) -> Arrays:
    if body.exchange == "images":
        return {}
    generator = build_gan(body.generator, body.build_seed).networks["generator"]
    return {name: tensor.numpy() for name, tensor in averaged_state(generator).items()}


def _statistics(body: Discriminate) -> frozenset[str]:
    return statistics_of(build_gan(body.generator, body.build_seed).networks["generator"])


DISCRIMINATE = Kind(
    name="train_discriminator",
    title="train a discriminator",
    phase="share",
    body=Discriminate,
    work=work,
    stateful=True,
    averaged=True,
    place=("from_step",),
    start=Start("version", _received_generator, _initial_generator, _statistics),
    answer=(
        *(field for field in COURSE_FIELDS if field.name != "examples"), *card_fields("in the first answer"),
        Field("signature", "text", "that this centre trained the discriminator", when="only where discriminators change places"),
    ),
    sends=(
        Sent("gradient.*", "gradients", "how synthetic images should change to look real to this centre's discriminator", "model",
             layout=_gradients),
        Sent("scale.*", "numbers", "factors of those gradients", "model", "where they travel rounded"),
        Sent("discriminator.*", "weights", f"this centre's discriminator; {MEMORY}", "model", "only where discriminators change places",
             layout=_discriminator, sent_if=lambda body: body.send_discriminator),
    ),
    receives=(
        Received("fake.*", lambda body: _received(body) if body.exchange == "images" else {}),
        Received("generator.*", lambda body: _received(body) if body.exchange == "generator" else {}),
        Received("discriminator.*", lambda body: _discriminator(body) if body.discriminator_of else {}),
    ),
    reveals="Gradients leave after every training step, so the steps of all jobs together are what is compared with the minimum. "
    "Whoever gathers them and has a discriminator can compute training images from them; clipping alone does not prevent it.",
    uses=(Uses("training", terms.generator_training),),
    trains=lambda body: terms.of_generator(body.generator, body.generator.training.steps),
)  # fmt: skip
