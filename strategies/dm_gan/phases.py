"""The two sides of a GAN: phases that train the discriminator, and the one that trains the generator."""

from __future__ import annotations

from functools import lru_cache

from models import GENERATIVE_MODELS, GenerativeModel, GeneratorSpec, Phase
from models.adversarial import AdversarialModel
from models.shapes_only import shapes_only


def adversarial_phases(model: GenerativeModel) -> tuple[list[Phase], Phase]:
    """The phases that train the discriminator, and the one that trains the generator."""
    phases = model.phases()
    discriminator = [phase for phase in phases if phase.network == "discriminator"]
    (generator,) = [phase for phase in phases if phase.network == "generator"]
    return discriminator, generator


def no_discriminator(model: str) -> str:
    """What to say of a model that is not a GAN."""
    gans = [name for name, settings in GENERATIVE_MODELS.builtin.items() if settings.adversarial]
    return f"model is {model!r}, which has no discriminator; name a GAN: {', '.join(gans)}, or one of a plug-in"


def build_gan(spec: GeneratorSpec, seed: int) -> AdversarialModel:
    """A model with a generator and a discriminator.

    Raises:
        ValueError: the model has no discriminator.
    """
    model = spec.build(seed)
    if not isinstance(model, AdversarialModel):
        raise ValueError(no_discriminator(spec.model))
    return model


def remote_problem(spec: GeneratorSpec, sends_images: bool) -> str | None:
    """Why a model cannot be trained with its generator on the server, if it cannot."""
    training = spec.training
    if training.growing:
        remedy = "set grow: false" if spec.hyper_parameters.get("grow") else "remove growing"
        return f"growing has no meaning where centres are at different steps of one generator; {remedy}"
    if training.sampling != "permutation":
        return (
            f"sampling is {training.sampling}, but batches of generated images have one size; set sampling: permutation"
        )
    with shapes_only():
        phases = build_gan(spec, 0).phases()
    on_generator = [phase for phase in phases if phase.network == "generator"]
    if len(on_generator) != 1:
        names = ", ".join(phase.name for phase in on_generator)
        return (
            f"the generator of {spec.model} is trained by {len(on_generator)} phases ({names}), and the server "
            "can run one; name another model"
        )
    (generating,) = on_generator
    if generating.interval != 1 or generating.repeats_in(0) != 1:
        how = f"has interval {generating.interval} and repeats {generating.repeats_in(0)}"
        return (
            f"phase {generating.name!r} of {spec.model} {how}, but the server steps the generator once for each step "
            "of a discriminator; name another model"
        )
    lazy = [phase.name for phase in phases if phase.interval > 1]
    if lazy and sends_images:
        return f"phase {lazy[0]!r} of {spec.model} does not run in every step, but images are sent for all; set exchange: generator"
    return None


def batches_of(spec: GeneratorSpec) -> dict[str, int]:
    """Batches of generated images in one training step, by phase; the generator's own comes last."""
    return dict(_batches_of(spec.model_dump_json()))


@lru_cache(maxsize=256)
def _batches_of(spec: str) -> tuple[tuple[str, int], ...]:
    with shapes_only():
        discriminating, generating = adversarial_phases(build_gan(GeneratorSpec.model_validate_json(spec), 0))
    return tuple((phase.name, phase.repeats_in(0)) for phase in [*discriminating, generating])
