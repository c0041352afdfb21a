"""Claim: a GAN step in our loop costs at most 1.05 times the same step written by hand in plain PyTorch.

Both do the same arithmetic at the same precision on the same images: the loop with all it offers (streams derived per
step, balanced batches, flips, options), and a function as one writes it for one model. They run in turns in one process
on one thread, so that whatever else the machine does falls on both; the ratio is the median over pairs of neighbours.

    python -m bench.gan_step            # writes bench/results/gan_step.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from models import GenerativeTrainer, GeneratorSpec, PatchArrays
from models.generative import Precision
from models.precision import processor

RESULTS = Path(__file__).parent / "results"
CLAIM = 1.05
# (model, image size, batch size, width)
CASES = (
    ("dcgan", 64, 16, "small"),
    ("dcgan", 32, 16, "small"),
    ("wgan_gp", 32, 16, "small"),
    ("wgan_gp", 64, 16, "small"),
)


def spec_of(model: str, image_size: int, batch_size: int, width: str) -> GeneratorSpec:
    return GeneratorSpec.model_validate(
        {
            "model": model,
            "image_size": image_size,
            "classes": ("other", "lesion"),
            "hyper_parameters": {"width": width},
            "training": {"batch_size": batch_size, "steps": 100_000},
        }
    )


def random_images(image_size: int) -> PatchArrays:
    pixels = np.random.default_rng(0).integers(0, 256, (400, 1, image_size, image_size), dtype=np.uint8)
    return PatchArrays(pixels, np.arange(400))


def loop_step(spec: GeneratorSpec, images: PatchArrays, precision: Precision) -> Callable[[], None]:
    """One step of our loop."""
    trainer = GenerativeTrainer(spec.build(0), spec.training, seed=0, precision=precision)
    return lambda: trainer.advance(images, trainer.step + 1) and None


def hand_step(spec: GeneratorSpec, images: PatchArrays, precision: Precision) -> Callable[[], None]:
    """The same step by hand: same networks, memory layout and optimizer; frozen while the other network learns."""
    return hand_training(spec, images, precision)[0]


def hand_training(
    spec: GeneratorSpec, images: PatchArrays, precision: Precision
) -> tuple[Callable[[], None], nn.ModuleDict]:
    """The step by hand, and the networks that it trains."""
    networks = spec.build(0).networks.train().to(memory_format=torch.channels_last)
    generator, discriminator = networks["generator"], networks["discriminator"]
    batch, betas = spec.training.batch_size, spec.training.betas
    on_g = torch.optim.AdamW(generator.parameters(), 1e-4, betas, weight_decay=0.0, fused=True)
    on_d = torch.optim.AdamW(discriminator.parameters(), 1e-4, betas, weight_decay=0.0, fused=True)
    rng, pixels = np.random.default_rng(0), images.pixels

    def real() -> Tensor:
        x = torch.from_numpy(pixels[rng.integers(len(pixels), size=batch)]).float() / 127.5 - 1
        for axis in (2, 3):
            x = torch.where((torch.rand(batch) < 0.5)[:, None, None, None], x.flip(axis), x)
        return x.contiguous(memory_format=torch.channels_last)

    def fake() -> Tensor:
        return generator(torch.randn(batch, 100))

    def learn(
        optimizer: torch.optim.Optimizer, network: nn.Module, other: nn.Module, loss: Callable[[], Tensor]
    ) -> None:
        network.requires_grad_(True)
        other.requires_grad_(False)
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            value = loss()
        value.backward()
        optimizer.step()

    def bce(logits: Tensor, target: Tensor) -> Tensor:
        return binary_cross_entropy_with_logits(logits.float(), target)

    def dcgan_discriminator() -> Tensor:
        x = real()
        with torch.no_grad():
            z = fake()
        return bce(discriminator(x), torch.rand(batch) * 0.3 + 0.8) + bce(discriminator(z), torch.zeros(batch))

    def critic() -> Tensor:
        x = real()
        with torch.no_grad():
            z = fake().to(x.dtype)
        on_real, on_fake = discriminator(torch.cat([x, z])).float().chunk(2)
        between = torch.lerp(x, z, torch.rand(batch, 1, 1, 1)).requires_grad_()
        (slope,) = torch.autograd.grad(discriminator(between).float().sum(), between, create_graph=True)
        penalty = (slope.float().flatten(1).norm(dim=1) - 1).square().mean()
        return on_fake.mean() - on_real.mean() + 10 * penalty

    def dcgan() -> None:
        learn(on_d, discriminator, generator, dcgan_discriminator)
        learn(on_g, generator, discriminator, lambda: bce(discriminator(fake()), torch.ones(batch)))

    def wgan() -> None:
        for _ in range(5):
            learn(on_d, discriminator, generator, critic)
        learn(on_g, generator, discriminator, lambda: -discriminator(fake()).float().mean())

    return (dcgan if spec.model == "dcgan" else wgan), networks


def interleaved(first: Callable[[], None], second: Callable[[], None], pairs: int) -> tuple[list[float], list[float]]:
    """Processor seconds of both, taken in turns; which of the two goes first alternates."""
    times: tuple[list[float], list[float]] = ([], [])
    for pair in range(-2, pairs):
        for which in (0, 1) if pair % 2 else (1, 0):
            started = time.process_time()
            (first, second)[which]()
            if pair >= 0:
                times[which].append(time.process_time() - started)
    return times


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--pairs", type=int, default=40)
    pairs = arguments.parse_args().pairs
    torch.set_num_threads(1)
    rows = []
    for case in CASES:
        spec, images = spec_of(*case), random_images(case[1])
        ours, plain = interleaved(loop_step(spec, images, "fp32"), hand_step(spec, images, "fp32"), pairs)
        ratio = statistics.median(a / b for a, b in zip(ours, plain, strict=True))
        rows.append(
            {
                "model": case[0], "image_size": case[1], "batch_size": case[2], "width": case[3],
                "loop_median_s": round(statistics.median(ours), 5), "plain_median_s": round(statistics.median(plain), 5),
                "ratio": round(ratio, 4), "holds": ratio <= CLAIM,
            }
        )  # fmt: skip
        print(
            f"{case[0]} {case[1]} px: loop {statistics.median(ours):.4f} s, plain {statistics.median(plain):.4f} s, ratio {ratio:.3f}"
        )
    result = {
        "claim": f"a step in the loop costs at most {CLAIM} of one by hand", "precision": "fp32", "threads": 1, "pairs": pairs,
        "time": "processor seconds", "processor": processor(), "torch": torch.__version__, "cases": rows,
    }  # fmt: skip
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "gan_step.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
