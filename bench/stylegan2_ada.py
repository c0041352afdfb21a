"""Claim: a step of StyleGAN2-ADA costs at most 0.35 (64 px) and 0.65 (128 px) of one as it is written plainly.

Both run in the same loop with the same weights, at the paper's width (channel base 16384) and batch 4, without augmentation, so that
only the networks differ. The plain version does what the equations say: zeros are inserted between pixels before the filter and the
convolution, every image has convolution weights of its own (one grouped convolution), weights are scaled anew each time, and torch's own
convolutions are used in its default layout. A step is amortised over lazy phases: time of a phase over its interval, summed.

Images and scores of both are compared first: they differ by at most 1e-4 of the largest value. Gradients with respect to the codes, which
pass every leaky ReLU's corner, are printed beside them.
The phases of both run in turns in one process on one thread; times are medians of processor seconds.

    python -m bench.stylegan2_ada            # writes bench/results/stylegan2_ada.json; --sizes 64 leaves the other's figures there
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from models import GenerativeTrainer, GeneratorSpec
from models.fir import taps_of
from models.phases import Batch
from models.precision import processor
from models.style_equalised import GAIN, EqualConv2d, leaky
from models.style_layers import StyledConv2d, ToImage
from models.stylegan2_ada import StyleGAN2ADAModel
from models.stylegan2_networks import Generator, Halving

RESULTS = Path(__file__).parent / "results"
# image size: largest share of the plain version's time
CLAIMS = {64: 0.35, 128: 0.65}
TOLERANCE = 1e-4
BATCH = 4


def spec_of(image_size: int, **hyper_parameters: object) -> GeneratorSpec:
    return GeneratorSpec.model_validate(
        {
            "model": "stylegan2_ada",
            "image_size": image_size,
            "classes": ("other", "lesion"),
            "hyper_parameters": {"augment": "none", **hyper_parameters},
            "training": {"batch_size": BATCH, "steps": 100_000},
        }
    )


# -- the plain version ---------------------------------------------------------------------------------------------


def filtered(x: Tensor, gain: float, before: int, after: int) -> Tensor:
    kernel = (taps_of(x.dtype) * gain).expand(x.shape[1], 1, 4, 4)
    return F.conv2d(F.pad(x, (before, after, before, after)), kernel, groups=x.shape[1])


def with_zeros(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return F.pad(x.view(n, c, h, 1, w, 1), (0, 1, 0, 0, 0, 1)).reshape(n, c, 2 * h, 2 * w)


def own_weights(x: Tensor, weight: Tensor, style: Tensor, demodulate: bool, padding: int) -> Tensor:
    """A convolution of every image with a weight of its own."""
    n = len(x)
    weights = weight[None] * style[:, None, :, None, None]
    if demodulate:
        weights = weights * (weights.square().sum((2, 3, 4), keepdim=True) + 1e-8).rsqrt()
    y = F.conv2d(x.reshape(1, -1, *x.shape[2:]), weights.flatten(0, 1), padding=padding, groups=n)
    return y.view(n, -1, *y.shape[2:])


class PlainStyled(StyledConv2d):
    def forward(self, x: Tensor, code: Tensor, noise: Tensor | None) -> Tensor:
        style = self.style(code) * self.on_style
        if self.doubles:
            x = filtered(with_zeros(x), 4.0, 3, 2)
        x = own_weights(x, self.weight, style, True, 0 if self.doubles else 1)
        if self.strength is not None and noise is not None:
            x = x + noise * self.strength
        return leaky(x + self.bias[:, None, None]) * GAIN


class PlainToImage(ToImage):
    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        return own_weights(x, self.weight, self.style(code) * self.on_style, False, 0) + self.bias[:, None, None]


class PlainGenerator(Generator):
    def synthesise(self, codes: Tensor, noise: Tensor) -> Tensor:
        pixels = self._pixels(self.noise_columns.split(noise)[3])
        x, image = self.constant.repeat(len(codes), 1, 1, 1), torch.zeros(())
        for number, layer in enumerate(self.layers):
            x = layer(x, codes[:, number], pixels[number])
            if number % 2 == 0:
                if number:
                    image = filtered(with_zeros(image), 4.0, 2, 1)
                image = image + self.to_image[number // 2](x, codes[:, number + 1])
        return image


class PlainConv(EqualConv2d):
    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight * self.on_weight
        bias = None if self.bias is None else self.bias * self.gain
        if self.halves:
            return F.conv2d(filtered(x, 1.0, 2, 2), weight, bias, stride=2)
        return F.conv2d(x, weight, bias, padding=self.size // 2)


class PlainHalving(Halving):
    def forward(self, x: Tensor) -> Tensor:
        return self.skip(filtered(x, 1.0, 1, 1)[:, :, ::2, ::2]) + leaky(self.second(leaky(self.first(x))))


PLAIN = {
    StyledConv2d: PlainStyled, ToImage: PlainToImage, Generator: PlainGenerator, EqualConv2d: PlainConv, Halving: PlainHalving,
}  # fmt: skip


def plainly(model: StyleGAN2ADAModel) -> StyleGAN2ADAModel:
    """The model with the same weights and plain layers."""
    for module in model.networks.modules():
        module.__class__ = PLAIN.get(type(module), type(module))  # type: ignore[assignment]
    return model


# -- comparison ----------------------------------------------------------------------------------------------------


def built(spec: GeneratorSpec) -> tuple[StyleGAN2ADAModel, StyleGAN2ADAModel]:
    """The model of this project, and the plain one."""
    ours, plain = spec.build(0), spec.build(0)
    assert isinstance(ours, StyleGAN2ADAModel) and isinstance(plain, StyleGAN2ADAModel)
    return ours, plainly(plain)


def differences(ours: StyleGAN2ADAModel, plain: StyleGAN2ADAModel) -> dict[str, float]:
    """Largest difference of images, scores and a path's gradients, over the largest value."""
    rng = torch.Generator().manual_seed(0)
    noise, images = ours.noise(BATCH, rng), torch.rand(BATCH, *ours.shape, generator=rng) * 2 - 1

    def values(model: StyleGAN2ADAModel) -> dict[str, Tensor]:
        generator = model.networks["generator"]
        codes = generator.codes(noise, None).detach().requires_grad_()
        made = generator.images_of(codes, noise)
        (slope,) = torch.autograd.grad(made.square().sum(), codes)
        return {"images": made, "gradients": slope, "scores": model.networks["discriminator"](images)}

    found, expected = values(ours), values(plain)
    return {
        k: float((found[k] - expected[k]).detach().abs().max() / expected[k].detach().abs().max()) for k in expected
    }


def times(
    models: tuple[StyleGAN2ADAModel, StyleGAN2ADAModel], spec: GeneratorSpec, pairs: int
) -> dict[str, list[float]]:
    """Median processor seconds of every phase, [ours, plain]."""
    trainers = [
        GenerativeTrainer(model, spec.training.model_copy(update={"channels_last": number == 0}), seed=0)
        for number, model in enumerate(models)
    ]
    images = torch.rand(BATCH, *models[0].shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    taken: dict[str, tuple[list[float], list[float]]] = {}
    for pair in range(-1, pairs):
        for number, phase in enumerate(trainers[0].phases):
            for which in (0, 1) if pair % 2 else (1, 0):
                trainer = trainers[which]
                batch = Batch(BATCH, images.to(memory_format=trainer.memory_format))
                started = time.process_time()
                trainer.run_phase(trainer.phases[number], batch, torch.Generator().manual_seed(pair + 1))
                if pair >= 0:
                    taken.setdefault(phase.name, ([], []))[which].append(time.process_time() - started)
    return {name: [statistics.median(times) for times in both] for name, both in taken.items()}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--pairs", type=int, default=5)
    arguments.add_argument("--sizes", type=int, nargs="+", default=sorted(CLAIMS))
    given = arguments.parse_args()
    torch.set_num_threads(1)
    rows = []
    for size in given.sizes:
        spec = spec_of(size)
        models = built(spec)
        apart = differences(*models)
        phases = times(models, spec, given.pairs)
        intervals = {phase.name: phase.interval for phase in models[0].phases()}
        ours, plain = (sum(phases[name][which] / intervals[name] for name in phases) for which in (0, 1))
        equal = max(apart["images"], apart["scores"]) <= TOLERANCE
        rows.append(
            {
                "image_size": size, "batch_size": BATCH, "pairs": given.pairs, "claim": CLAIMS[size],
                "step_s": round(ours, 4), "plain_s": round(plain, 4),
                "ratio": round(ours / plain, 4), "holds": equal and ours / plain <= CLAIMS[size],
                "largest_difference": {name: float(f"{value:.2g}") for name, value in apart.items()},
                "phases_s": {name: [round(one, 4) for one in both] for name, both in phases.items()},
            }
        )  # fmt: skip
        print(
            f"{size} px: {ours:.3f} s, plain {plain:.3f} s, ratio {ours / plain:.3f}, apart {apart}",
            flush=True,
        )
    written = RESULTS / "stylegan2_ada.json"
    earlier = json.loads(written.read_text())["cases"] if written.exists() else []
    rows += [row for row in earlier if row["image_size"] not in given.sizes]
    rows.sort(key=lambda row: row["image_size"])
    result = {
        "claim": "an amortised step of StyleGAN2-ADA costs at most the share `claim` of the plain version's", "precision": "fp32",
        "threads": 1, "time": "processor seconds", "processor": processor(), "torch": torch.__version__,
        "cases": rows,
    }  # fmt: skip
    RESULTS.mkdir(exist_ok=True)
    written.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
