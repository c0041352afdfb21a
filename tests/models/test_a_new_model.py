"""A generative model and a classifier are each one new file and one entry of a table; nothing else is touched.

They are added to a copy of the packages, and another process reads a scenario with them and trains them.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from federation.wire.code_digest import ALL

CHECKOUT = Path(__file__).resolve().parents[2]

GAN = """
from math import prod

from pydantic import Field
from torch import nn

from models.adversarial import AdversarialModel
from models.generative import GenerativeSettings, GenerativeTraining, Phase


class LeastSquares(GenerativeSettings):
    adversarial = True

    latent: int = Field(default=8, ge=1)

    @classmethod
    def training_defaults(cls):
        return GenerativeTraining(batch_size=4)

    def build(self, shape, num_classes):
        return LeastSquaresModel(self, shape, num_classes)


class Score(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.layer = nn.Linear(prod(shape), 1)

    def forward(self, images, labels=None):
        return self.layer(images.flatten(1)).flatten()


class Draw(nn.Module):
    def __init__(self, latent, shape):
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(latent, prod(shape)), nn.Tanh())
        self.shape = shape

    def forward(self, noise, labels=None):
        return self.layer(noise).unflatten(1, self.shape)


class LeastSquaresModel(AdversarialModel):
    def __init__(self, settings, shape, num_classes):
        networks = Draw(settings.latent, shape), Score(shape)
        super().__init__(*networks, shape, settings.latent, num_classes)

    def phases(self):
        return [Phase("discriminator", "discriminator", self.on_both),
                Phase("generator", "generator", self.on_fakes, fresh_images=False)]

    def on_both(self, batch, rng):
        discriminator = self.networks["discriminator"]
        real, fake = discriminator(batch.real()), discriminator(self.fakes(batch, rng).detach())
        loss = (real - 1).square().mean() + fake.square().mean()
        return loss, {"discriminator_loss": loss.detach()}

    def on_fakes(self, batch, rng):
        loss = (self.networks["discriminator"](self.fakes(batch, rng)) - 1).square().mean()
        return loss, {"generator_loss": loss.detach()}
"""

CLASSIFIER = """
from math import prod

from torch import nn


class Perceptron(nn.Sequential):
    head = "2."

    def __init__(self, shape, num_classes):
        super().__init__(nn.Flatten(), nn.Linear(prod(shape), 8), nn.Linear(8, num_classes))
"""

SCENARIO = """
name: new
centres:
  A: {roles: [receiver], data: {source: phantom, patients: 24, scanner: digital}}
  B: {roles: [provider], data: {source: phantom, patients: 24, scanner: film}}
task: {label: lesion, image_size: 32}
generators: {b_new: {centre: B, model: least_squares, latent: 4, steps: 3}}
arms:
  new: {strategy: one_shot, generators: [b_new]}
  average: {strategy: fedavg_gan, model: least_squares, rounds: 2, local_steps: 2, fidelity: &few {fewest_patients: 2}}
  remote: {strategy: dm_gan, model: least_squares, updates: 2, fidelity: *few}
study: {classifiers: [perceptron], synthetic: 8}
"""

TRAINING = """
import sys
from pathlib import Path

import numpy as np

import models
from models import ClassifierSpec, ClassifierTraining, GeneratorSpec, PatchArrays, Stage, fit_classifier, fit_generative
from scenarios.reader import parse

assert Path(models.__file__).is_relative_to(sys.argv[1])
scenario = parse(Path("new.yaml").read_text(), source="new.yaml", base=Path.cwd())
generator, (choice,) = scenario.generators["b_new"], scenario.study.classifiers
spec = GeneratorSpec(
    model=generator.model, hyper_parameters=generator.hyper_parameters, training=generator.training, image_size=32,
    classes=("healthy", "lesion"),
)
assert spec.hyper_parameters == {"latent": 4} and (spec.training.steps, spec.training.batch_size) == (3, 4)
pixels = np.random.default_rng(0).integers(0, 256, (16, 1, 32, 32), dtype=np.uint8)
images = PatchArrays(pixels, np.arange(16), np.arange(16) % 2)
fit = fit_generative(spec.build(0), images, spec.training, seed=0)
assert fit.history["step"] == [1, 2, 3] and np.isfinite(fit.history["generator_loss"]).all()
network = ClassifierSpec(model=choice.model, image_size=32, channels=1, num_classes=2, input_size=16).build(0)
fit = fit_classifier(
    network, {"x": images}, [Stage("x", 3, 1e-3, {"x": 1.0})], images, ClassifierTraining(batch_size=4), seed=0
)
assert fit.best_step == 3
"""


def add(file: Path, import_line: str, table: str, entry: str) -> None:
    """One entry at the head of a table, with the import that it needs."""
    text = file.read_text()
    for line, more in (("from __future__ import annotations\n", import_line), (table, f"    {entry}")):
        assert text.count(line) == 1
        text = text.replace(line, f"{line}{more}\n")
    file.write_text(text)


@pytest.fixture
def copy(tmp_path):
    for package in (*ALL, "polycentre"):
        shutil.copytree(CHECKOUT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_one_file_and_one_line_each(copy):
    (copy / "models" / "least_squares.py").write_text(GAN)
    add(
        copy / "models" / "generator_spec.py", "from models.least_squares import LeastSquares",
        "_BUILTIN: dict[str, type[GenerativeSettings]] = {\n", '"least_squares": LeastSquares,',
    )  # fmt: skip
    (copy / "models" / "perceptron.py").write_text(CLASSIFIER)
    add(
        copy / "models" / "classifiers.py", "from models.perceptron import Perceptron",
        "_BUILTIN: Mapping[str, Architecture] = {\n", '"perceptron": Architecture(Perceptron),',
    )  # fmt: skip
    (copy / "new.yaml").write_text(SCENARIO)
    environment = os.environ | {"PYTHONPATH": str(copy)}
    done = subprocess.run(
        [sys.executable, "-c", TRAINING, str(copy)],
        cwd=copy,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
