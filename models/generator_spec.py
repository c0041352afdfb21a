"""All that is needed to build and train a generative model, as data: what a job carries and a package states."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator

from models.dcgan import DCGAN
from models.flow_matching import FlowMatching
from models.generative import GenerativeModel, GenerativeTraining
from models.random_streams import isolated_global_stream
from models.wgan_gp import WGANGP

# Name in a scenario -> hyper-parameters, which build the model.
GENERATIVE_MODELS: dict[str, type[DCGAN] | type[WGANGP] | type[FlowMatching]] = {
    "dcgan": DCGAN,
    "wgan_gp": WGANGP,
    "flow_matching": FlowMatching,
}
NUM_CLASSES = 2


class GeneratorSpec(BaseModel):
    """A generative model that is yet to be built.

    Attributes:
        model: a name of `GENERATIVE_MODELS`.
        hyper_parameters: of that model; what is left out has the model's default.
        training: default: the model's own.
        conditional: one model of both classes, sampled by label.
        image_size, channels: of the images.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    image_size: int
    channels: Literal[1, 3] = 1
    conditional: bool = False
    hyper_parameters: dict[str, Any]
    training: GenerativeTraining

    @model_validator(mode="before")
    @classmethod
    def _resolve(cls, values: Any) -> Any:
        """Check the model's name, and fill in its defaults."""
        if not isinstance(values, dict):
            return values
        name = values.get("model")
        if name not in GENERATIVE_MODELS:
            raise ValueError(f"model is {name!r}; known models: {', '.join(GENERATIVE_MODELS)}")
        settings = GENERATIVE_MODELS[name]
        training = values.get("training", {})
        if not isinstance(training, GenerativeTraining):
            training = settings.training_defaults().model_dump() | dict(training)
        hyper_parameters = settings.model_validate(values.get("hyper_parameters", {}))
        return values | {"hyper_parameters": hyper_parameters.model_dump(mode="json"), "training": training}

    @property
    def num_classes(self) -> int | None:
        return NUM_CLASSES if self.conditional else None

    def build(self, seed: int) -> GenerativeModel:
        """The model with random weights that depend on the seed alone.

        Raises:
            ValueError: the model cannot make images of this size.
        """
        settings = GENERATIVE_MODELS[self.model].model_validate(self.hyper_parameters)
        with isolated_global_stream(seed):
            return settings.build(self.image_size, self.channels, self.num_classes)
