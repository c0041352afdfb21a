"""A study whose generator learns its few training images by heart, so that its "synthetic" previews are pictures of patients.

The attack works where near copies are not looked for.
"""

import numpy as np
import pytest
from approved_node import ApprovedNode

from clients.centre_file import TRIAL_MINIMUMS
from clients.side import NodeSide, load_patches
from strategies import one_shot

LOW = TRIAL_MINIMUMS.model_dump(mode="json")


@pytest.fixture
def node(centre_file, tmp_path, patch_cache, federated):
    """Function: centre B, which allows so many near copies, and a study of one generator that it has approved."""

    def make(generator, *overrides, near_copies=0.05):
        scenario = federated(
            f"generators={{b_gan: {{centre: B, {generator}}}}}", "arms={real: {strategy: local}, one: {strategy: one_shot, generators: "
            "[b_gan]}}", *overrides,
        )  # fmt: skip
        data = scenario.centres["B"].data.model_dump(mode="json")
        return ApprovedNode(
            centre_file,
            tmp_path,
            scenario,
            minimums=LOW | {"near_copies": near_copies},
            cache=str(patch_cache),
            data=data,
        )

    return make


GAN = "model: dcgan, width: 4, steps: 2, batch_size: 4"


def own_patches(made):
    """The training patches of the node that its generator learns from."""
    from clients.node import Node

    here = Node.own({"centre_file": str(made.path)})
    body = made.asked("train_generator").outline
    return load_patches(here, body, body.task).select(split="train", labels=body.generator.labels)


def by_heart(made, monkeypatch, turned):
    """What a generator draws that has learned a centre's patches by heart."""
    known = own_patches(made).stored()

    def drawn(spec, weights, per_class, *, seed, **_):
        rows = np.random.default_rng(seed).integers(len(known), size=sum(per_class.values()))
        labels = np.concatenate([np.full(count, label) for label, count in sorted(per_class.items())])
        return turned(known[rows]), labels.astype(np.int64)

    monkeypatch.setattr(one_shot, "drawn", drawn)


def darker(images):
    return (images * 0.8 + 5).astype(np.uint8)


@pytest.mark.parametrize("turned", [lambda images: images, lambda images: images[..., ::-1].copy(), darker])
def test_a_generator_that_knows_its_patients_by_heart_stays(turned, node, monkeypatch):
    made = node(GAN)
    by_heart(made, monkeypatch, turned)
    ask = made.asked("train_generator")
    reply = made.ask(ask)
    assert (reply.code, reply.arrays, reply.numbers) == ("near_copies", {}, {"allowed": 0.05}), (
        "nor do its previews leave"
    )
    monkeypatch.setattr(NodeSide, "check_copies", lambda *_: None)
    reply = made.ask(ask)
    assert reply.ok and len(reply.arrays["preview.pixels"]), "the defence is what keeps it"


def test_a_generator_that_learns_by_heart_by_itself_stays(node):
    made = node(
        "model: flow_matching, widths: [32, 64], steps: 600, batch_size: 4, flips: none, learning_rate: 0.002, warmup_steps: 20",
        "split={train: 0.1, val: 0.45, test: 0.45}", "task.crops=1",
    )  # fmt: skip
    assert own_patches(made).table["patient"].nunique() < 5
    assert made.ask(made.asked("train_generator")).code == "near_copies"


def test_an_honest_generator_leaves(node):
    made = node(GAN)
    reply = made.ask(made.asked("train_generator"))
    assert reply.ok, (reply.code, reply.numbers)
