"""Claim: a step of PGGAN at 128 px (batch 4) costs at most 0.9 of a plain fp32 loop, and 0.65 where the processor has bf16 matrix units.

The plain loop is written as in most public code: weights scaled whenever they are used, images doubled by interpolation before a 3x3
convolution and halved by pooling after one, real and generated images in passes of their own, contiguous memory. Ours runs in
the format that is faster there (bf16 with matrix units, fp32 without), and does the same arithmetic: in fp32 both networks' outputs are
equal to 1e-4, which is checked first. They run in turns in one process on one thread; the ratio is the median over pairs of neighbours.

    python -m bench.pggan               # writes bench/results/pggan.json
    python -m bench.pggan --widths paper --pairs 3    # half a minute a step
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, interpolate, leaky_relu, linear

from bench.gan_step import RESULTS, interleaved, loop_step
from models import GeneratorSpec, PatchArrays
from models.generative import Precision
from models.precision import bf16_flags, processor

SIDE, BATCH = 128, 4
CLAIM, CLAIM_BF16 = 0.9, 0.65
TOLERANCE = 1e-4


def spec_of(width: str | int) -> GeneratorSpec:
    """Full size from the start, one critic step: a step of the last stage once its layers have faded in."""
    return GeneratorSpec.model_validate(
        {
            "model": "pggan", "image_size": SIDE, "classes": ("other", "lesion"),
            "hyper_parameters": {"width": width, "latent": 512, "grow": False, "critic_steps": [1]},
            "training": {"batch_size": BATCH, "steps": 100_000},
        }
    )  # fmt: skip


class Plain(nn.Module):
    """Both networks as one writes them, over the weights of ours."""

    def __init__(self, generator: nn.Module, critic: nn.Module):
        super().__init__()
        self.g, self.d = generator, critic

    @staticmethod
    def conv(layer: nn.Module, x: Tensor) -> Tensor:
        if layer.resample == "up":
            x = interpolate(x, scale_factor=2)
        x = conv2d(x, layer.weight * layer.scale, layer.bias, padding=layer.padding)
        return avg_pool2d(x, 2) if layer.resample == "down" else x

    @staticmethod
    def dense(layer: nn.Module, x: Tensor) -> Tensor:
        return linear(x, layer.weight * layer.scale, layer.bias)

    @staticmethod
    def norm(x: Tensor) -> Tensor:
        return x / torch.sqrt(torch.mean(x**2, dim=1, keepdim=True) + 1e-8)

    def generate(self, noise: Tensor) -> Tensor:
        x = self.dense(self.g.begin, self.norm(noise)).view(-1, *self.g.grid)
        x = self.norm(leaky_relu(x, 0.2))
        for number, first in enumerate(self.g.resampled):
            x = self.norm(leaky_relu(self.conv(first, x), 0.2))
            if number:
                x = self.norm(leaky_relu(self.conv(self.g.second[number - 1], x), 0.2))
        return self.conv(self.g.to_image[-1], x)

    def score(self, images: Tensor) -> Tensor:
        x = leaky_relu(self.conv(self.d.from_image[-1], images), 0.2)
        for same, down in zip(reversed(self.d.same), reversed(self.d.resampled), strict=True):
            x = leaky_relu(self.conv(down, leaky_relu(self.conv(same, x), 0.2)), 0.2)
        groups = x.view(-1, min(4, len(x)), *x.shape[1:])
        deviation = torch.sqrt(groups.var(dim=1, correction=0) + 1e-8).mean(dim=(1, 2, 3))
        channel = deviation.repeat_interleave(groups.shape[1]).view(-1, 1, 1, 1).expand(-1, 1, *x.shape[2:])
        x = leaky_relu(self.conv(self.d.last, torch.cat([x, channel], dim=1)), 0.2)
        return self.dense(self.d.score, leaky_relu(self.dense(self.d.flat, x.flatten(1)), 0.2)).flatten()


def plain_step(spec: GeneratorSpec, images: PatchArrays) -> Callable[[], None]:
    networks = spec.build(0).networks.train()
    generator, critic = networks["generator"], networks["discriminator"]
    plain = Plain(generator, critic)
    rate, betas = spec.training.learning_rate, spec.training.betas
    on_g = torch.optim.Adam(generator.parameters(), rate, betas)
    on_d = torch.optim.Adam(critic.parameters(), rate, betas)
    average = [parameter.detach().clone() for parameter in generator.parameters()]
    rng, pixels = np.random.default_rng(0), images.pixels

    def noise() -> Tensor:
        return torch.randn(BATCH, 512)

    def step() -> None:
        real = torch.from_numpy(pixels[rng.integers(len(pixels), size=BATCH)]).float() / 127.5 - 1
        with torch.no_grad():
            fake = plain.generate(noise())
        critic.requires_grad_(True)
        on_d.zero_grad()
        on_real, on_fake = plain.score(real), plain.score(fake)
        between = torch.lerp(real, fake, torch.rand(BATCH, 1, 1, 1)).requires_grad_()
        (slope,) = torch.autograd.grad(plain.score(between).sum(), between, create_graph=True)
        penalty = (slope.flatten(1).norm(dim=1) - 1).square().mean()
        (on_fake.mean() - on_real.mean() + 10 * penalty + 0.001 * on_real.square().mean()).backward()
        on_d.step()
        critic.requires_grad_(False)
        on_g.zero_grad()
        (-plain.score(plain.generate(noise())).mean()).backward()
        on_g.step()
        for mean, parameter in zip(average, generator.parameters(), strict=True):
            mean.lerp_(parameter.detach(), 0.001)

    return step


@torch.no_grad()
def largest_difference(spec: GeneratorSpec) -> float:
    """Between outputs of ours and of the plain networks, relative to the largest one."""
    model = spec.build(0)
    generator, critic = model.networks["generator"], model.networks["discriminator"]
    plain, noise = Plain(generator, critic), torch.randn(BATCH, 512)
    found = []
    images = plain.generate(noise)
    for ours, theirs in ((generator(noise), images), (critic(images), plain.score(images))):
        found.append(float((ours - theirs).abs().max() / theirs.abs().max()))
    return max(found)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--pairs", type=int, default=6)
    arguments.add_argument(
        "--widths", nargs="+", default=["small", "128"], help="small, paper, or a number of channels"
    )
    given = arguments.parse_args()
    torch.set_num_threads(1)
    fast: Precision = "bf16" if "amx_bf16" in bf16_flags() else "fp32"
    claim = CLAIM_BF16 if fast == "bf16" else CLAIM
    images = PatchArrays(
        np.random.default_rng(0).integers(0, 256, (100, 1, SIDE, SIDE), dtype=np.uint8), np.arange(100)
    )
    rows = []
    for width in given.widths:
        spec = spec_of(int(width) if width.isdigit() else width)
        difference = largest_difference(spec)
        assert difference < TOLERANCE, f"the plain networks are others: {difference}"
        ours, plain = interleaved(loop_step(spec, images, fast), plain_step(spec, images), given.pairs)
        ratio = statistics.median(a / b for a, b in zip(ours, plain, strict=True))
        rows.append(
            {
                "width": width, "loop_median_s": round(statistics.median(ours), 4),
                "plain_median_s": round(statistics.median(plain), 4), "ratio": round(ratio, 4), "holds": ratio <= claim,
                "largest_difference": difference,
            }
        )  # fmt: skip
        print(
            f"{width}: loop {statistics.median(ours):.3f} s, plain {statistics.median(plain):.3f} s, ratio {ratio:.3f}"
        )
    result = {
        "claim": f"PGGAN {SIDE} px, batch {BATCH}: a step in the loop costs at most {claim} of a plain one in fp32",
        "precision": fast, "threads": 1, "pairs": given.pairs, "time": "processor seconds", "processor": processor(),
        "torch": torch.__version__, "cases": rows,
    }  # fmt: skip
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "pggan.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
