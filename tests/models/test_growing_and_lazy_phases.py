"""Growing schedules, lazy phases, optimizers of their own and held state: what a restart changes, and closed forms."""

import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from growing_gan import LAZY, SIDES, GrowingGAN
from torch import nn

from basics.image_shape import ImageShape
from models import GENERATIVE_MODELS, GenerativeTrainer, GenerativeTraining, GeneratorSpec, PatchArrays, fit_generative
from models.batch_stream import BatchStream, reduced
from models.generative import GenerativeModel, Phase, PhaseOptimizer, backpropagate
from models.patch_arrays import to_float
from models.phases import Batch, runs_of
from models.schedule import Schedule
from models.weight_average import average_decay_by_images

CHECKOUT = Path(__file__).resolve().parents[2]
GROWING = (
    {"steps": 3, "image_size": 8, "batch_size": 6},
    {"steps": 5, "image_size": 16, "batch_size": 4, "reset_optimizer": True},
    {"steps": 6, "image_size": 32, "batch_size": 3},
)
STEPS = 14
CLASSES = ("without", "with")


@pytest.fixture(autouse=True)
def known(monkeypatch):
    monkeypatch.setitem(GENERATIVE_MODELS.builtin, "growing", GrowingGAN)


def images(count=20, seed=0) -> PatchArrays:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 1, 32, 32), dtype=np.uint8)
    return PatchArrays(pixels, np.arange(count), np.arange(count) % 2)


def spec(**training) -> GeneratorSpec:
    whole = {"steps": STEPS, "growing": GROWING, "ema_images": 30, "ema_ramp": 0.5, "warmup_steps": 3}
    whole |= {"decay": "linear_second_half", "snapshot_every": 4}
    return GeneratorSpec.model_validate(
        {"model": "growing", "image_size": 32, "classes": CLASSES, "training": whole | training}
    )


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


# -- restarts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampling", ["permutation", "poisson"])
def test_a_restart_after_any_step_changes_no_bit(sampling):
    """Also in mid-stage, right at a change of stage, and between runs of lazy phases."""
    s, later = spec(sampling=sampling), {}
    whole = GenerativeTrainer(s.build(1), s.training, seed=7)
    states = []
    for step in range(STEPS):
        whole.advance(images(), step + 1)
        states.append(whole.state())
    assert [len({tuple(state["model.networks.generator.grown"].tolist()) for state in states[:n]}) for n in (3, 8)] == [
        1,
        4,
    ]
    for name in ("probability", "path_mean", "signs"):
        assert len({str(state[f"model.{name}"]) for state in states}) > 2, "it changes"
    for step in range(1, STEPS):
        second = GenerativeTrainer(s.build(2), s.training, seed=7)
        second.load_state(states[step - 1])
        assert_same(second.state(), states[step - 1])
        torch.manual_seed(step)  # another process has another global stream
        second.advance(images(), STEPS)
        later[step] = second.state()
        assert_same(later[step], states[-1])
    at_once = GenerativeTrainer(s.build(1), s.training, seed=7)
    at_once.advance(images(), STEPS)
    assert_same(at_once.state(), states[-1])


PROCESS = """
import os, sys
sys.path.insert(0, sys.argv[2])
import numpy as np, torch
torch.set_num_threads(1)
import test_growing_and_lazy_phases as here
here.GENERATIVE_MODELS.builtin["growing"] = here.GrowingGAN
spec = here.spec()
trainer = here.GenerativeTrainer(spec.build(1), spec.training, seed=7)
if os.path.exists(sys.argv[1]):
    trainer.load_state({n: torch.from_numpy(a) for n, a in np.load(sys.argv[1]).items()})
for step in range(trainer.step, here.STEPS):
    trainer.advance(here.images(), step + 1)
    np.savez(sys.argv[1] + ".tmp.npz", **{n: t.numpy() for n, t in trainer.state().items()})
    os.replace(sys.argv[1] + ".tmp.npz", sys.argv[1])
    print(step + 1, flush=True)
    if sys.argv[3] == str(step + 1):
        while True:
            trainer.model.networks["generator"].mapping.weight.data.zero_()  # what is not recorded is lost
"""


def test_a_killed_process_goes_on_bit_for_bit(tmp_path):
    """Killed in the middle of the second stage, and once more right at the change to the third."""
    record = tmp_path / "state.npz"
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT)}

    def begin(stop_at):
        return subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(record), str(Path(__file__).parent), str(stop_at)],
            env=environment, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    for stop_at in (5, 8):
        process = begin(stop_at)
        while process.stdout.readline().strip() != str(stop_at):
            assert process.poll() is None
        time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    last = begin(0)
    assert last.wait(120) == 0
    s = spec()
    whole = GenerativeTrainer(s.build(1), s.training, seed=7)
    whole.advance(images(), STEPS)
    with np.load(record) as found:
        assert_same({name: torch.from_numpy(array) for name, array in found.items()}, whole.state())


# -- growing -------------------------------------------------------------------------------------------------------


def test_a_stage_sees_means_over_areas_in_batches_of_its_own():
    s = spec(flips="none")
    model, seen = s.build(0), []

    def watched(phase):
        def loss(batch, rng):
            seen.append((model.moment, phase.name, batch))
            return phase.loss(batch, rng)

        return replace(phase, loss=loss)

    phases = [watched(phase) for phase in model.phases()]
    trainer = GenerativeTrainer(model, s.training, seed=0, phases=phases)
    fit = trainer.advance(images(), STEPS)
    main = [(moment, batch) for moment, name, batch in seen if name == "discriminator"]
    # One critic step in the first stage, two in those after it.
    assert [moment.step for moment, _ in main] == [0, 1, 2, *(step for step in range(3, STEPS) for _ in range(2))]
    full = to_float(torch.from_numpy(images().pixels))
    drawn = []
    for moment, batch in main:
        stage = GROWING[moment.stage]
        side = stage["image_size"]
        assert batch.real().shape == (stage["batch_size"], 1, side, side) and moment.size == (side, side)
        small = full.view(20, 1, side, 32 // side, side, 32 // side).mean((3, 5))
        distances = (batch.real()[:, None] - small).abs().amax((2, 3, 4))
        assert distances.amin(1).max() < 1e-6
        drawn += distances.argmin(1).tolist()
    assert len(drawn) == 3 * 6 + 10 * 4 + 12 * 3 == trainer.images == fit.history["images"][-1]
    for start in range(0, 80, 20):  # the passes through the images go on over the stages
        assert sorted(drawn[start : start + 20]) == list(range(20))
    moments = {moment.step: moment for moment, _, _ in seen}
    assert (moments[3].stage_step, moments[7].stage_step, moments[8].stage_step) == (0, 4, 0)
    assert (moments[0].size_before, moments[8].size_before) == (None, (16, 16))


def test_a_stage_may_begin_with_new_moments():
    s = spec()
    trainer = GenerativeTrainer(s.build(0), s.training, seed=0)
    counts = []
    for step in range(STEPS):
        trainer.advance(images(), step + 1)
        counts.append(int(trainer.state()["optimizer.generator.0.step"]))
    assert counts == [1, 2, 3, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]


def test_names_in_a_state_are_the_same_in_all_stages():
    s = spec()
    trainer = GenerativeTrainer(s.build(0), s.training, seed=0)
    names = [set(s.build(0).state_dict())]
    for step in (2, 6, STEPS):
        trainer.advance(images(), step)
        names.append({n for n in trainer.model.state_dict() if not n.startswith("average.")})
    assert all(one == names[0] for one in names)


def test_a_model_that_has_not_grown_up_is_sampled_as_it_is():
    s = spec(snapshot_every=None)
    model = s.build(0)
    trainer = GenerativeTrainer(model, s.training, seed=0)
    trainer.advance(images(), 2)
    other = s.build(5)
    other.load_shared_arrays(model.shared_arrays(trainer.fit))
    ours, theirs = (m.sample(3, None, torch.Generator().manual_seed(0)) for m in (model, other))
    assert torch.allclose(ours, theirs, atol=1e-6)
    assert ours.shape == (3, 1, 32, 32) and torch.equal(ours[..., ::4, ::4].repeat_interleave(4, -1), ours[..., ::4, :])


def test_rectangles_are_reduced_to_rectangles():
    training = GenerativeTraining.model_validate({"growing": [{"steps": 2000, "image_size": [8, 4], "batch_size": 2}]})
    (stage,) = Schedule(training, []).stages
    full = torch.rand(3, 1, 32, 16)
    assert stage.size == (8, 4) and training.model_dump(mode="json")["growing"][0]["image_size"] == [8, 4]
    torch.testing.assert_close(reduced(full, stage.size), full.view(3, 1, 8, 4, 4, 4).mean((3, 5)))
    assert reduced(full, None) is full and reduced(full, (32, 16)) is full
    assert reduced(full[:0], (8, 4)).shape == (0, 1, 8, 4)


@pytest.mark.parametrize(
    ("model", "changes", "message"),
    [
        ("dcgan", {}, "growing has 3 stages, but this model is trained at 32 px only; remove growing"),
        ("wgan_gp", {}, "this model is trained at 32 px only"),
        ("flow_matching", {}, "this model is trained at 32 px only"),
        ("growing", {"steps": 15}, "growing has 14 steps in all, but the training has 15; make them the same"),
        ("growing", {"growing": GROWING[:2], "steps": 8}, "growing ends with 16 px, but the images are 32 px; add"),
        ("growing", {"growing": [GROWING[1], GROWING[0], GROWING[2]]}, r"growing\[1\].image_size is 8 px, less than"),
        ("growing", {"growing": [GROWING[0] | {"image_size": 12}, *GROWING[1:]]}, r"\[0\].image_size is 12 px; this .* 8 px, 16"),
    ],
)  # fmt: skip
def test_a_schedule_that_a_model_cannot_follow_is_refused(model, changes, message):
    refused = spec(**changes).model_copy(update={"model": model, "hyper_parameters": {}})
    with pytest.raises(ValueError, match=message) as caught:
        refused.build(0)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=message):
        GenerativeTrainer(
            refused.model_copy(update={"training": GenerativeTraining()}).build(0), refused.training, seed=0
        )


# -- phases and their optimizers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("interval", "gain", "factor"), [(1, None, 1), (4, None, 4), (4, 1.0, 1), (1, 2.5, 2.5)])
def test_the_gain_multiplies_the_gradient_and_not_the_logs(interval, gain, factor):
    model = spec().build(0)
    (phase,) = [phase for phase in model.phases() if phase.name == "r1"]
    judge, batch = model.networks["discriminator"], Batch(4, torch.randn(4, 1, 32, 32))

    def gradient(phase):
        judge.zero_grad()
        _, logs = backpropagate(phase, judge, batch, torch.Generator())
        return torch.cat([p.grad.flatten() for p in judge.parameters() if p.grad is not None]), logs

    plain, logs = gradient(replace(phase, interval=1))
    scaled, same = gradient(replace(phase, interval=interval, gain=gain))
    torch.testing.assert_close(scaled, factor * plain)
    assert plain.abs().max() > 0 and same["r1"] == logs["r1"]


class Lines(GenerativeModel):
    def __init__(self):
        network = nn.ModuleDict({"mapping": nn.Linear(3, 1), "rest": nn.Linear(3, 1)})
        super().__init__({"generator": network}, ImageShape(1, 32, 32), None)

    def phases(self):
        return []

    def draw(self, generator, n, labels, rng):
        raise NotImplementedError


def linear(optimizers, **training):
    """A trainer in whose phases the gradient of every weight is 2."""
    model = Lines()
    network = model.networks["generator"]

    def loss(batch, rng):
        total = sum(parameter.sum() for parameter in network.parameters())
        return 2 * total, {}

    phases = [
        Phase(f"phase{i}", "generator", loss, optimizer=own, fresh_images=False) for i, own in enumerate(optimizers)
    ]
    training = GenerativeTraining(steps=4, learning_rate=0.01, betas=(0.5, 0.9), **training)
    return GenerativeTrainer(model, training, seed=0, phases=phases), network


@pytest.mark.parametrize(
    ("own", "rate", "mapping"),
    [
        (PhaseOptimizer(), 0.01, 0.01),
        (PhaseOptimizer(factor=0.5), 0.005, 0.005),
        (PhaseOptimizer(learning_rate=0.03, factor=0.5), 0.015, 0.015),
        (PhaseOptimizer(factor=lambda moment: 1 - moment.step / moment.steps), 0.01, 0.01),
        (PhaseOptimizer(rates={"mapping.": 0.1}), 0.01, 0.001),
        (PhaseOptimizer(rates={"mapping.": 0.1}, lazy_interval=4), 0.008, 0.0008),
    ],
)
def test_the_first_step_of_adam_is_its_rate(own, rate, mapping):
    trainer, network = linear([own])
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    trainer.advance(images(), 1)
    for name, parameter in network.named_parameters():
        expected = mapping if name.startswith("mapping.") else rate
        torch.testing.assert_close(
            before[name] - parameter.detach(), torch.full_like(parameter, expected), rtol=1e-4, atol=1e-7
        )


def test_a_rate_that_follows_the_moment():
    trainer, network = linear([PhaseOptimizer(factor=lambda moment: 1 - moment.step / moment.steps)])
    trainer.advance(images(), 3)
    before = network["rest"].weight.detach().clone()
    trainer.advance(images(), 4)
    torch.testing.assert_close(before - network["rest"].weight, torch.full((1, 3), 0.0025), rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize(
    ("own", "betas"),
    [
        (PhaseOptimizer(), (0.5, 0.9)),
        (PhaseOptimizer(betas=(0.0, 0.99)), (0.0, 0.99)),
        (PhaseOptimizer(betas=lambda moment: (0.25, 0.75)), (0.25, 0.75)),
        (PhaseOptimizer(lazy_interval=4), (0.5**0.8, 0.9**0.8)),
        (PhaseOptimizer(lazy_interval=4, betas=lambda moment: (0.25, 0.75)), (0.25**0.8, 0.75**0.8)),
    ],
)
def test_betas_are_seen_in_the_moments(own, betas):
    trainer, _ = linear([own])
    trainer.advance(images(), 1)
    state = trainer.state()
    assert state["optimizer.generator.0.exp_avg"].flatten()[0] == pytest.approx((1 - betas[0]) * 2)
    assert state["optimizer.generator.0.exp_avg_sq"].flatten()[0] == pytest.approx((1 - betas[1]) * 4)


def test_weight_decay_and_clipping_of_a_phase():
    trainer, network = linear([PhaseOptimizer(weight_decay=0.5, clip_norm=0.001)], clip_norm=100.0)
    before = network["rest"].weight.detach().clone()
    trainer.advance(images(), 1)
    torch.testing.assert_close(network["rest"].weight.detach(), before * (1 - 0.01 * 0.5) - 0.01, rtol=1e-3, atol=1e-5)
    state = trainer.state()
    norm = math.sqrt(sum(float((2 * state[f"optimizer.generator.{i}.exp_avg"]).square().sum()) for i in range(4)))
    assert norm == pytest.approx(0.001, rel=1e-3)
    unclipped, _ = linear([PhaseOptimizer(clip_norm=math.inf)], clip_norm=0.001)
    unclipped.advance(images(), 1)
    assert unclipped.state()["optimizer.generator.0.exp_avg"].flatten()[0] == pytest.approx(1.0)


def test_phases_share_moments_unless_they_name_their_own_optimizer():
    s = spec(growing=(), steps=8)
    trainer = GenerativeTrainer(s.build(0), s.training, seed=0)
    trainer.advance(images(), 8)
    state = trainer.state()
    counts = {name: int(t) for name, t in state.items() if name.startswith("optimizer.") and name.endswith(".step")}
    # Every parameter of the main phases; a penalty's gradient does not reach the last bias.
    judge = dict(trainer.model.networks["discriminator"].named_parameters())
    used = {n: counts.get(f"optimizer.discriminator.{i}.step") for i, n in enumerate(judge)}
    assert used["score.weight"] == 8 + 8 // LAZY and used["score.bias"] == 8
    assert counts["optimizer.generator.0.step"] == 8 and counts["optimizer.generator:path.0.step"] == 4
    assert not torch.equal(state["optimizer.generator.0.exp_avg"], state["optimizer.generator:path.0.exp_avg"])


def test_contradicting_settings_are_refused():
    with pytest.raises(ValueError, match="phase 'phase1' shares the optimizer 'generator' and wants other settings"):
        linear([PhaseOptimizer(), PhaseOptimizer(factor=2.0)])
    with pytest.raises(ValueError, match="a rate is for parameters 'maping.', and the network has none"):
        linear([PhaseOptimizer(rates={"maping.": 0.1})])


def test_a_lazy_phase_keeps_its_place_among_the_batches():
    """Whether it runs or waits, the batches of the phases after it are the same."""
    none = lambda batch, rng: (torch.zeros(()), {})  # noqa: E731
    phases = [
        Phase("a", "x", none, repeats=2),
        Phase("b", "x", none, interval=3),
        Phase("c", "x", none),
        Phase("d", "y", none, fresh_images=False),
    ]
    assert [(run.phase.name, run.batch) for run in runs_of(phases, 3)] == [
        ("a", 0),
        ("a", 1),
        ("b", 2),
        ("c", 3),
        ("d", 3),
    ]
    assert [(run.phase.name, run.batch) for run in runs_of(phases, 4)] == [("a", 0), ("a", 1), ("c", 3), ("d", 3)]
    schedule = Schedule(GenerativeTraining(steps=100, batch_size=5), phases)
    assert [schedule.images_of(step) for step in range(4)] == [20, 15, 15, 20]
    for step in (0, 1, 7, 100):
        assert schedule.images_before(step) == sum(schedule.images_of(k) for k in range(step))


# -- hooks, held state, average ------------------------------------------------------------------------------------


def test_hooks_get_every_step_the_models_first():
    s = spec()
    model, heard = s.build(0), []
    trainer = GenerativeTrainer(
        model, s.training, seed=0, after_step=lambda done: heard.append((done, float(model.probability)))
    )
    trainer.advance(images(), 8)
    assert [done.step for done, _ in heard] == list(range(1, 9))
    assert [done.images for done, _ in heard][:4] == [6, 12, 18, 26] and heard[-1][0].images == trainer.images
    assert all(
        isinstance(value, torch.Tensor) for done, _ in heard for values in done.logs.values() for value in values
    )
    assert [len(done.logs["discriminator_loss"]) for done, _ in heard] == [1, 1, 1, 2, 2, 2, 2, 2]
    assert ["r1" in done.logs for done, _ in heard] == [step % LAZY == 0 for step in range(8)]
    changed = [after != before for (_, before), (_, after) in zip(heard, heard[1:], strict=False)]
    assert changed == [step in (4, 8) for step in range(2, 9)]


def test_no_mean_is_taken_of_integers():
    model = spec().build(0)
    with pytest.raises(ValueError, match="'steps' is torch.int64, of which a federation takes no mean"):
        model.hold("steps", torch.tensor(3), "averaged")
    model.hold("steps", torch.tensor(3), "local")
    assert model.held["steps"] == "local" and "steps" in model.state_dict()


def test_progress_is_in_images_of_the_steps_asked_for():
    s, seen = spec(), []
    trainer = GenerativeTrainer(s.build(0), s.training, seed=0)
    trainer.advance(images(), 4, lambda done, total: seen.append((done, total)))
    trainer.advance(images(), 9, lambda done, total: seen.append((done, total)))
    assert seen == [(6, 26), (12, 26), (18, 26), (26, 26), (8, 38), (16, 38), (24, 38), (32, 38), (38, 38)]


def test_an_average_by_images_forgets_half_in_its_half_life():
    assert average_decay_by_images(100, None, 10**6, 100) == 0.5
    assert average_decay_by_images(100, None, 0, 50) ** 2 == pytest.approx(0.5)
    assert average_decay_by_images(100, 0.1, 500, 50) == 0.5  # a tenth of 500
    assert average_decay_by_images(100, 0.1, 0, 50) == 0.0  # at first the weights as they are
    assert average_decay_by_images(100, 0.1, 0, 0) == 1.0
    s = spec(growing=(), steps=3, batch_size=4, snapshot_every=None, ema_ramp=None, ema_images=8)
    model = s.build(0)
    start = model.networks["generator"].mapping.weight.detach().clone()
    weights = []
    trainer = GenerativeTrainer(
        model, s.training, seed=0, after_step=lambda done: weights.append(model.networks["generator"].mapping.weight.detach().clone())
    )  # fmt: skip
    trainer.advance(images(), 3)
    keep, expected = 0.5 ** (4 / 8), start
    for own in weights:
        expected = keep * expected + (1 - keep) * own
    torch.testing.assert_close(model.average.mapping.weight, expected)


def test_two_averages_are_refused():
    with pytest.raises(ValueError, match=r"ema is 0\.9 and ema_images 30; set one of them to null"):
        spec(ema=0.9)
    with pytest.raises(ValueError, match="ema_ramp is set and ema_images is not"):
        spec(ema_images=None)


# -- Poisson batches -----------------------------------------------------------------------------------------------


def stream(batch_size=5, count=20, seed=3, **training):
    training = GenerativeTraining(batch_size=batch_size, sampling="poisson", flips="none", **training)
    model = spec(growing=(), snapshot_every=None).build(0)
    return BatchStream(model, images(count), training, seed)


def members(batch):
    known = to_float(torch.from_numpy(images().pixels)).flatten(1)
    return [int((known - image).abs().sum(1).argmin()) for image in batch.real().flatten(1)]


def test_every_image_enters_a_batch_independently():
    one = stream()
    batches = [members(one.batch(number)) for number in range(1500)]
    entered = np.zeros((len(batches), 20))
    for row, batch in zip(entered, batches, strict=True):
        assert len(set(batch)) == len(batch)
        row[batch] = 1
    q, n = 0.25, len(batches)
    assert np.abs(entered.mean(0) - q).max() < 5 * math.sqrt(q * (1 - q) / n)
    sizes = entered.sum(1)
    assert sizes.mean() == pytest.approx(5, abs=5 * math.sqrt(20 * q * (1 - q) / n))
    assert sizes.var() == pytest.approx(20 * q * (1 - q), rel=0.2)
    pairs = (entered.T @ entered / n)[~np.eye(20, dtype=bool)]
    assert np.abs(pairs - q**2).max() < 5 * math.sqrt(q**2 * (1 - q**2) / n)
    follows = (entered[1:] * entered[:-1]).mean()
    assert follows == pytest.approx(q**2, abs=5 * math.sqrt(q**2 / (20 * n)))


def test_a_poisson_batch_needs_no_batch_before_it():
    one = stream()
    for number in range(7):
        one.batch(number)
    assert torch.equal(one.batch(7).real(), stream().batch(7).real())
    assert not any(members(one.batch(7)) == members(stream(seed=seed).batch(7)) for seed in (4, 5))


def test_empty_batches_step_nothing_and_are_counted():
    s = spec(growing=(), steps=30, batch_size=2, sampling="poisson", snapshot_every=None)
    model = s.build(0)
    plain = [
        replace(phase, optimizer=PhaseOptimizer())
        for phase in model.phases()
        if phase.name in ("discriminator", "generator")
    ]
    phases = [replace(plain[0], repeats=1), plain[1]]
    sizes = []

    def counted(batch, rng):
        sizes.append(batch.size)
        return plain[0].loss(batch, rng)

    phases[0] = replace(phases[0], loss=counted)
    trainer = GenerativeTrainer(model, s.training, seed=1, phases=phases)
    fit = trainer.advance(images(), 30)
    expected = [len(stream(2, seed=1).batch(number).real()) for number in range(30)]
    assert 0 in expected and [size for size in expected if size] == sizes
    assert trainer.empty_batches == expected.count(0) == fit.history["empty_batches"][-1]
    assert fit.history["images"] == np.cumsum(expected).tolist()
    state = trainer.state()
    steps = {int(state[f"optimizer.{name}.{n}.step"]) for name in ("generator", "discriminator") for n in (0, 1)
             if f"optimizer.{name}.{n}.step" in state}  # fmt: skip
    assert steps == {len(sizes)}


def test_a_phase_may_run_on_empty_batches():
    """What DP-SGD does: its noise is added all the same."""
    s, sizes = spec(growing=(), steps=30, batch_size=2, sampling="poisson", snapshot_every=None), []

    def noise(phase, network, batch, rng):
        sizes.append((batch.size, tuple(batch.real().shape)))
        for parameter in network.parameters():
            parameter.grad = torch.ones_like(parameter)
        return torch.zeros(()), {}

    model = s.build(0)
    phases = [replace(model.phases()[2], fresh_images=True, on_empty=True, gradients=noise)]
    trainer = GenerativeTrainer(model, s.training, seed=1, phases=phases)
    trainer.advance(images(), 30)
    assert (0, (0, 1, 32, 32)) in sizes and len(sizes) == 30 == trainer.state()["optimizer.generator.0.step"]
    assert trainer.empty_batches == [size for size, _ in sizes].count(0)


def test_labels_of_poisson_batches_are_the_images_own():
    labels = np.array([0] * 18 + [1] * 2)
    arrays = PatchArrays(images().pixels, np.arange(20), labels)
    model = GeneratorSpec.model_validate({
        "model": "flow_matching", "image_size": 32, "classes": CLASSES, "conditional": True,
        "hyper_parameters": {"widths": [32]}, "training": {},
    }).build(0)  # fmt: skip
    training = GenerativeTraining(batch_size=10, sampling="poisson", flips="none")
    batches = [BatchStream(model, arrays, training, 3).batch(number) for number in range(200)]
    for batch in batches[:20]:
        assert batch.labels.tolist() == labels[members(batch)].tolist()
    assert torch.cat([batch.labels for batch in batches]).float().mean() == pytest.approx(0.1, abs=0.03)


# -- losses of single images ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["wgan_gp", "flow_matching"])
@pytest.mark.parametrize("conditional", [False, True])
def test_the_mean_of_single_losses_is_the_loss(model, conditional):
    """To rounding: means are taken in another order."""
    hyper = {"width": 4} if model == "wgan_gp" else {"widths": [32]}
    built = GeneratorSpec.model_validate(
        {
            "model": model,
            "image_size": 32,
            "classes": CLASSES,
            "conditional": conditional,
            "hyper_parameters": hyper,
            "training": {},
        }
    ).build(0)
    for parameter in built.parameters():  # a fresh velocity field is zero
        parameter.data.add_(
            0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
        )
    phase = built.phases()[0]
    labels = torch.tensor([0, 1, 1, 0, 1]) if conditional else None
    batch = Batch(5, torch.randn(5, 1, 32, 32, generator=torch.Generator().manual_seed(1)), labels)
    losses, logs = phase.losses_of_images(batch, torch.Generator().manual_seed(2))
    loss, expected = phase.loss(batch, torch.Generator().manual_seed(2))
    assert losses.shape == (5,) and len({round(one, 6) for one in losses.tolist()}) == 5
    torch.testing.assert_close(losses.mean(), loss)
    for name, value in logs.items():
        torch.testing.assert_close(value, expected[name])
    # A loss depends on its own image alone.
    changed = batch.real().clone()
    changed[3] += 1
    others, _ = phase.losses_of_images(replace(batch, images=changed), torch.Generator().manual_seed(2))
    assert (others != losses).tolist()[3] and torch.allclose(others[[0, 1, 2, 4]], losses[[0, 1, 2, 4]], atol=1e-5)


@pytest.mark.parametrize(("phase", "reason"), [(0, "batch norm"), (1, "it sees no real image")])
def test_a_phase_without_single_losses_says_why(phase, reason):
    built = GeneratorSpec.model_validate(
        {"model": "dcgan", "image_size": 32, "classes": CLASSES, "hyper_parameters": {"width": 4}, "training": {}}
    ).build(0)
    with pytest.raises(ValueError, match=f"has no loss of each image: .*{reason}"):
        built.phases()[phase].losses_of_images(Batch(4), torch.Generator())


def test_sides_are_those_of_the_schedule():
    assert tuple(stage["image_size"] for stage in GROWING) == SIDES
    fit = fit_generative(spec().build(0), images(), spec().training, seed=0)
    assert np.isfinite(fit.scalars["discriminator_loss"]).all() and "images" not in fit.scalars
