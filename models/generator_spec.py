"""All that is needed to build and train a generative model, as data: in a job's body and on a package's card."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, model_validator

from models.dcgan import DCGAN
from models.flow_matching import FlowMatching
from models.generative import GenerativeModel, GenerativeSettings, GenerativeTraining
from models.patch_arrays import NUM_CLASSES
from models.random_streams import isolated_global_stream
from models.wgan_gp import WGANGP

# Name in a scenario -> settings, which build the model.
GENERATIVE_MODELS: dict[str, type[GenerativeSettings]] = {
    "dcgan": DCGAN,
    "wgan_gp": WGANGP,
    "flow_matching": FlowMatching,
}


def settings_class(model: str) -> type[GenerativeSettings]:
    """The settings of a model.

    Raises:
        ValueError: an unknown name.
    """
    if model not in GENERATIVE_MODELS:
        raise ValueError(f"no model {model!r}; known models: {', '.join(GENERATIVE_MODELS)}")
    return GENERATIVE_MODELS[model]


def _known(model: str) -> str:
    settings_class(model)
    return model


GenerativeModelName = Annotated[str, AfterValidator(_known)]


class GeneratorSpec(BaseModel):
    """A generative model before it is built.

    Attributes:
        hyper_parameters: of that model; those left out take the model's defaults.
        training: settings left out take the model's defaults, too.
        conditional: one model of all classes, sampled by label.
        image_size, channels: of the images.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: GenerativeModelName
    image_size: int
    channels: Literal[1, 3] = 1
    conditional: bool = False
    hyper_parameters: dict[str, Any]
    training: GenerativeTraining

    @model_validator(mode="before")
    @classmethod
    def _resolve(cls, values: Any) -> Any:
        """Fill in the model's defaults; of an unknown model its name is refused."""
        settings = GENERATIVE_MODELS.get(str(values.get("model"))) if isinstance(values, dict) else None
        if settings is None:
            return values
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
        settings = settings_class(self.model).model_validate(self.hyper_parameters)
        with isolated_global_stream(seed):
            return settings.build(self.image_size, self.channels, self.num_classes)
