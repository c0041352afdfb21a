"""Generators, classifiers, the two training loops, and generator packages. Knows nothing of data sources or Flower."""

from models.classifiers import CLASSIFIERS, ClassifierName, ClassifierSpec
from models.errors import ModelError, PackageError
from models.fit_classifier import ClassifierFit, ClassifierTraining, fit_classifier
from models.fit_generative import GenerativeFit, GenerativeTrainer, fit_generative
from models.generative import GenerativeModel, GenerativeSettings, GenerativeTraining, Phase, Precision
from models.generator_spec import GENERATIVE_MODELS, GenerativeModelName, GeneratorSpec, settings_class
from models.package import GeneratorPackage
from models.patch_arrays import PatchArrays
from models.precision import faster_precision, probe_precision
from models.predict import predict
from models.stages import Stage

__all__ = [
    "CLASSIFIERS", "GENERATIVE_MODELS", "ClassifierFit", "ClassifierName", "ClassifierSpec", "ClassifierTraining",
    "GenerativeFit", "GenerativeModel", "GenerativeModelName", "GenerativeSettings", "GenerativeTrainer",
    "GenerativeTraining", "GeneratorPackage", "GeneratorSpec", "ModelError", "PackageError", "PatchArrays", "Phase",
    "Precision", "Stage", "faster_precision", "fit_classifier", "fit_generative", "predict", "probe_precision",
    "settings_class",
]  # fmt: skip
