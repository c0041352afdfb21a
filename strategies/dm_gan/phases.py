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
    return f"model is {model!r}, which has no discriminator; name a GAN: {', '.join(gans)}"


def build_gan(spec: GeneratorSpec, seed: int) -> AdversarialModel:
    """A model with a generator and a discriminator.

    Raises:
        ValueError: the model has no discriminator.
    """
    model = spec.build(seed)
    if not isinstance(model, AdversarialModel):
        raise ValueError(no_discriminator(spec.model))
    return model


def batches_of(spec: GeneratorSpec) -> dict[str, int]:
    """Batches of generated images in one training step, by phase; the generator's own comes last."""
    return dict(_batches_of(spec.model_dump_json()))


@lru_cache(maxsize=256)
def _batches_of(spec: str) -> tuple[tuple[str, int], ...]:
    with shapes_only():
        discriminating, generating = adversarial_phases(build_gan(GeneratorSpec.model_validate_json(spec), 0))
    return tuple((phase.name, phase.repeats) for phase in [*discriminating, generating])
