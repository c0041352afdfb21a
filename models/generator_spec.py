"""All that is needed to build and train a generative model, as data: in a job's body and on a package's card."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from basics.image_shape import ImageShape, ImageSize, Storage, size_text
from basics.plugins import Table, subclass_of
from models.dcgan import DCGAN
from models.flow_matching import FlowMatching
from models.generative import GenerativeModel, GenerativeSettings, GenerativeTraining
from models.pggan import PGGAN
from models.r3gan import R3GAN
from models.random_streams import isolated_global_stream
from models.schedule import check_growing
from models.stylegan2_ada import StyleGAN2ADA
from models.wgan_gp import WGANGP

# Name in a scenario -> settings, which build the model.
_BUILTIN: dict[str, type[GenerativeSettings]] = {
    "dcgan": DCGAN,
    "wgan_gp": WGANGP,
    "flow_matching": FlowMatching,
    "stylegan2_ada": StyleGAN2ADA,
    "pggan": PGGAN,
    "r3gan": R3GAN,
}
GENERATIVE_MODELS: Table[type[GenerativeSettings]] = Table("models", _BUILTIN, subclass_of(GenerativeSettings))


def settings_class(model: str) -> type[GenerativeSettings]:
    """The settings of a model.

    Raises:
        ValueError: an unknown name.
    """
    if model not in GENERATIVE_MODELS:
        raise ValueError(GENERATIVE_MODELS.unknown(model))
    return GENERATIVE_MODELS[model]


def _known(model: str) -> str:
    settings_class(model)
    return model


GenerativeModelName = Annotated[str, AfterValidator(_known)]


class GeneratorSpec(BaseModel):
    """A generative model before it is built.

    Attributes:
        hyper_parameters: of that model; those left out take the model's defaults.
        training: settings left out take the model's defaults, too, or follow from it and the size, as a growing schedule does.
        image_size: height and width.
        storage: of the images that it learns from, and makes.
        classes: names of all labels of its task, in their order: an image of label 1 shows the second.
        made: the classes that it learns and makes; those of a conditional model are all when left out, else the last one.
        conditional: sampled by label; else it makes one class.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: GenerativeModelName
    image_size: ImageSize
    channels: Literal[1, 3] = 1
    storage: Storage = "uint8"
    classes: tuple[str, ...] = Field(min_length=2)
    made: tuple[str, ...] = Field(min_length=1)
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
        resolved = values | {"hyper_parameters": hyper_parameters.model_dump(mode="json"), "training": training}
        if resolved.get("made") is None and isinstance(resolved.get("classes"), list | tuple):
            resolved["made"] = resolved["classes"] if resolved.get("conditional") else resolved["classes"][-1:]
        return resolved

    @model_validator(mode="after")
    def _made_are_classes(self) -> GeneratorSpec:
        unknown = [name for name in self.made if name not in self.classes]
        if unknown:
            raise ValueError(f"makes {unknown[0]!r}, which is not among the classes {', '.join(self.classes)}")
        if len(set(self.classes)) < len(self.classes) or len(set(self.made)) < len(self.made):
            raise ValueError(f"names a class twice: {', '.join(self.classes)}; {', '.join(self.made)}")
        if len(self.made) > 1 and not self.conditional:
            raise ValueError(
                f"makes {', '.join(self.made)} without labels, so nobody could tell them apart; set conditional: true, or name one "
                "class"
            )
        if self.training.quarter_turns and self.image_size[0] != self.image_size[1]:
            raise ValueError(
                f"quarter_turns is true, but images are {size_text(self.image_size)}: turned, they would have another shape; set "
                "quarter_turns: false"
            )
        return self

    @model_validator(mode="after")
    def _training_of_its_size(self) -> GeneratorSpec:
        settings = settings_class(self.model).model_validate(self.hyper_parameters)
        resolved = settings.resolved_training(self.image_size, self.training)
        if resolved is not self.training:
            # A field of a frozen model is set here once, where it is built, so that cards and jobs say what is done.
            object.__setattr__(self, "training", resolved)
        return self

    @property
    def shape(self) -> ImageShape:
        """Of its images."""
        return ImageShape.of(self.image_size, self.channels)

    @property
    def labels(self) -> tuple[int, ...]:
        """Labels of the classes that it makes, ascending."""
        return tuple(label for label, name in enumerate(self.classes) if name in self.made)

    @property
    def num_classes(self) -> int | None:
        """Labels that a conditional model takes; None for one without."""
        return len(self.classes) if self.conditional else None

    def build(self, seed: int) -> GenerativeModel:
        """The model with random weights that depend on the seed alone.

        Raises:
            ValueError: the model cannot make images of this shape, or not be trained by the growing schedule.
        """
        settings = settings_class(self.model).model_validate(self.hyper_parameters)
        with isolated_global_stream(seed):
            model = settings.build(self.shape, self.num_classes)
        check_growing(self.training, model)
        return model
