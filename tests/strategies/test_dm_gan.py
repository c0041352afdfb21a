"""dm-GAN: with one centre and no delay it is ordinary GAN training; both exchanges agree; discriminators stay at home."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from federation.wire.availability import Availability, Fate
from federation.wire.clock import VirtualClock
from federation.wire.units import Units
from models import GenerativeTrainer, GeneratorSpec
from models.dcgan import DCGANModel
from models.federated_parts import averaged_state
from models.phases import PhaseOptimizer
from strategies.ask import Ask, anything
from strategies.dm_gan.generator import Draw, RemoteGenerator, combine
from strategies.dm_gan.local import (
    DISCRIMINATE,
    GradientRules,
    decode_gradients,
    discriminator_steps,
    encode_gradients,
    protected,
)
from strategies.dm_gan.server import RemoteTraining
from strategies.dm_gan.settings import DmGANPlan, DmGANSettings
from strategies.dm_gan.sizes import LARGEST_JOB, adapted, images_layout
from strategies.fidelity_plan import Reference
from strategies.kind import layout_bytes
from strategies.members import Member

SIZE = 32
GANS = {
    "dcgan": {},
    "wgan_gp": {},
    "pggan": {"grow": False, "critic_steps": [2]},
    "r3gan": {"width": 8},
    "stylegan2_ada": {},
}
ALL_GANS = [(model, conditional) for model in GANS for conditional in (False, True)]


def state_of(centres, key=None):
    from safetensors.numpy import load_file

    (folder,) = (centres_folder(centres) / "A" / "states").iterdir()
    newest = max(folder.glob("*.safetensors"), key=lambda path: int(path.stem))
    return {n.removeprefix("state."): a for n, a in load_file(newest).items() if n.startswith("state.")}


def centres_folder(centres):
    from pathlib import Path

    return Path(centres.place["out"]) / "centres"


@pytest.mark.parametrize(("model", "conditional"), ALL_GANS)
@pytest.mark.parametrize("exchange", ["images", "generator"])
def test_one_centre_and_one_batch_a_job_is_ordinary_training(model, conditional, exchange, lab, share, same_arrays):
    here = lab(A=20)
    spec = here.spec(model, conditional, GANS[model], decay="linear_second_half", steps=5)
    settings = DmGANSettings(
        updates=5, batches_per_job=1, exchange=exchange, steps="mean" if exchange == "generator" else "each"
    )
    centres = here.centres()
    (shared,) = share(centres, here.dm_gan(spec, settings))
    assert not shared.problems
    plain = GenerativeTrainer(spec.build(5), spec.training, seed=100)
    plain.advance(here.patches("A", conditional), 5)
    weights = plain.model.shared_arrays()
    found = shared.generators["arm", "task"].weights
    discriminator = {n: t.numpy() for n, t in plain.state().items() if ".discriminator." in n}
    kept = {n: a for n, a in state_of(centres).items() if ".discriminator." in n}
    if exchange == "generator":
        # Running statistics follow images of the server's own, which draws none of the centre's noise.
        weights, found = ({n: a for n, a in w.items() if "running" not in n} for w in (weights, found))
    same_arrays(found, weights)
    same_arrays(kept, discriminator)


def test_the_generator_is_stepped_as_its_phase_says(lab, share, same_arrays, monkeypatch):
    """A rate, betas, a norm and a name of its own, and a rate that follows the moment of the generator's schedule."""
    whole, moments = DCGANModel.phases, []

    def halving(moment):
        moments.append((moment.step, moment.steps))
        return 0.5**moment.step

    own = PhaseOptimizer(
        "own", learning_rate=0.05, factor=halving, betas=(0.0, 0.99), clip_norm=1.0, rates={"layers.0.": 0.5}
    )

    def phases(model):
        return [replace(phase, optimizer=own) if phase.network == "generator" else phase for phase in whole(model)]

    monkeypatch.setattr(DCGANModel, "phases", phases)
    here = lab(A=20)
    spec = here.spec(ema=None)
    (shared,) = share(here.centres(), here.dm_gan(spec, DmGANSettings(updates=5, batches_per_job=1)))
    assert not shared.problems and {(step, 5) for step in range(5)} <= set(moments), "the centre counts to 12"
    plain = GenerativeTrainer(spec.build(5), spec.training, seed=100)
    plain.advance(here.patches("A"), 5)
    same_arrays(shared.generators["arm", "task"].weights, plain.model.shared_arrays())


def jobs_with_discriminator(centres):
    return [
        any(name.startswith("discriminator.") for name in job.arrays) for job in centres.sent("train_discriminator")
    ]


def test_discriminators_travel_only_when_they_change_places(lab, share):
    here = lab(A=12, B=12)
    spec = here.spec(ema=None)
    settings = DmGANSettings(updates=7, batches_per_job=1, lock_step=True, swap_every=3)
    centres = here.centres()
    (shared,) = share(centres, here.dm_gan(spec, settings, strategy="md_gan"))
    assert not shared.problems
    rounds = [jobs_with_discriminator(centres)[start : start + 2] for start in range(0, 14, 2)]
    assert rounds == [[number in (3, 6)] * 2 for number in range(7)], "a swapped discriminator is sent once"
    sent = [r.unit for r in centres.replies if any(n.startswith("discriminator.") for n in r.arrays)]
    assert len(sent) == 2 * 2


def test_a_swapped_discriminator_is_trained_on_where_it_arrived(lab, share, same_arrays):
    """What a centre sends at a swap is what the other one goes on with, and what that one then keeps training."""
    here = lab(A=12, B=12)
    settings = DmGANSettings(updates=5, batches_per_job=1, lock_step=True, swap_every=2)
    centres = here.centres()
    share(centres, here.dm_gan(here.spec("wgan_gp", ema=None), settings, strategy="md_gan"))

    def discriminators(one):
        return {n: a for n, a in one.arrays.items() if n.startswith("discriminator.")}

    replies = {
        (r.centre, number // 2): r
        for number, r in enumerate(r for r in centres.replies if r.kind == "train_discriminator")
    }
    jobs = {(j.centre, number // 2): j for number, j in enumerate(centres.sent("train_discriminator"))}
    for here_, there in (("A", "B"), ("B", "A")):
        same_arrays(discriminators(jobs[here_, 2]), discriminators(replies[there, 1]))
    # Update 3 ends with another swap: what is sent then was trained since in two jobs, not set back before the second.
    for name, array in discriminators(replies["A", 3]).items():
        assert not np.array_equal(array, discriminators(replies["B", 1])[name])
    assert not discriminators(jobs["A", 3])


# -- the two exchanges ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("model", "conditional"), ALL_GANS)
def test_both_exchanges_give_the_same_mean_gradient(model, conditional, lab):
    """Several batches against one version of the generator, in the middle of a training."""
    here = lab(A=20)
    spec = here.spec(model, conditional, GANS[model])
    patches, draw = here.patches("A", conditional), Draw(100, 2, 3, (0, 1))
    server = RemoteGenerator(spec, 5, 12)
    fakes = {f"fake.{phase}": images for phase, images in server.images(0, draw).items()}
    generator = {f"generator.{n}": t.numpy() for n, t in averaged_state(server.generator).items()}
    found = {}
    for exchange, received in (("images", fakes), ("generator", generator)):
        found[exchange], _, _, _ = discriminator_steps(
            spec, patches, received, {}, exchange=exchange, rules=GradientRules(), build_seed=5, seed=100, from_step=2,
            batches=3, device="cpu", precision="fp32",
        )  # fmt: skip
    batches = server.gradients_of(0, draw, found["images"]["images"])
    assert len(batches) == 3
    mean = combine([1 / 3] * 3, batches)
    for (name, _), gradient in zip(server.generator.named_parameters(), mean, strict=True):
        np.testing.assert_allclose(gradient.numpy(), found["generator"][name], atol=1e-5, err_msg=name)
        # Blocks of r3gan end in weights of 0 at first, which let no gradient through.
        inside = model == "r3gan" and any(part in name for part in (".widen.", ".mix.", ".biases."))
        assert (np.abs(found["generator"][name]).max() > 0) != inside


def test_an_old_version_is_rebuilt_as_it_was(lab):
    """The gradient of a late answer goes through the generator that made its images."""
    here = lab(A=20)
    server, draw = RemoteGenerator(here.spec(), 5, 12), Draw(7, 0, 2, (0, 1))
    images = server.images(0, draw)["generator"]
    gradient = np.random.default_rng(0).normal(size=images.shape).astype(np.float32)
    before = server.gradients_of(0, draw, gradient)
    for _ in range(2):
        server.step([torch.ones_like(p) for p in server.generator.parameters()])
        server.version += 1
        server.keep_version()
    for old, new in zip(before, server.gradients_of(0, draw, gradient), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(old, new, strict=True))
    assert np.array_equal(server.images(0, draw)["generator"], images)
    assert not np.array_equal(server.images(2, draw)["generator"], images)
    server.forget_versions({1})
    assert [server.holds(version) for version in range(3)] == [False, True, True]


def test_a_generator_goes_on_after_a_restart(lab):
    here = lab(A=20)
    spec = here.spec(decay="linear_second_half")

    def advance(server, steps):
        for _ in range(steps):
            server.step([torch.sin(p.detach() * 50) for p in server.generator.parameters()])
            server.version += 1
            server.keep_version()

    whole, first, second = (RemoteGenerator(spec, 5, 8) for _ in range(3))
    advance(whole, 8)
    advance(first, 3)
    first.forget_versions({2})
    second.load_state(first.state(), first.version)
    assert second.holds(2) and second.holds(3) and not second.holds(1)
    advance(second, 5)
    for (name, a), b in zip(whole.trainer.state().items(), second.trainer.state().values(), strict=True):
        assert torch.equal(a, b), name


def test_combine_is_the_weighted_sum():
    gradients = [[torch.full((2,), float(10**i)), torch.tensor(float(i))] for i in range(3)]
    total = combine([0.5, 2.0, 3.0], gradients)
    assert total[0].tolist() == [0.5 + 20 + 300] * 2 and total[1].item() == 2.0 + 6.0
    assert combine([1.0], gradients[1:2])[0] is gradients[1][0], "the average of one is that one, bit for bit"


# -- weights of the centres ----------------------------------------------------------------------------------


@given(counts=st.lists(st.integers(1, 5000), min_size=1, max_size=6), power=st.floats(0, 2), equal=st.booleans())
def test_weights_of_all_centres_without_delay_sum_to_one(counts, power, equal):
    training = a_training(counts, power, "equal" if equal else "patches")
    weights = [training.weight_of(f"c{i}", 0, len(counts)) for i in range(len(counts))]
    assert sum(weights) == pytest.approx(1)
    assert weights == pytest.approx([1 / len(counts) if equal else n / sum(counts) for n in counts])
    for tau in (1, 5):
        assert training.weight_of("c0", tau, len(counts)) == pytest.approx(weights[0] * (1 + tau) ** -power)


def a_training(counts, power, weights):
    names = [f"c{i}" for i in range(len(counts))]
    spec = GeneratorSpec.model_validate(
        {
            "model": "dcgan",
            "image_size": 32,
            "classes": ["healthy", "lesion"],
            "hyper_parameters": {"width": 4},
            "training": {},
        }
    )
    free = dict.fromkeys(DISCRIMINATE.body.model_fields, anything)
    members = tuple(Member(Ask(DISCRIMINATE, "dm_gan", name, "task", {}, free)) for name in names)
    settings = DmGANSettings(updates=1, staleness_power=power, weights=weights)
    plan = DmGANPlan("arm", "task", "dm_gan", spec, 0, members, settings, fidelity=None)
    training = RemoteTraining(Units("s", "", {}, {}), plan, VirtualClock({}, seed=0, purpose=""))
    training.weigh(Reference({}, {}, dict(zip(names, counts, strict=True)), dict.fromkeys(names, (1,)), ()))
    return training


def test_lock_step_with_two_centres_is_the_weighted_mean_of_their_gradients(lab, share, same_arrays):
    here = lab(A=30, B=10)
    spec = here.spec(ema=None)
    (shared,) = share(here.centres(), here.dm_gan(spec, DmGANSettings(updates=1, batches_per_job=2, lock_step=True)))
    server, draws = RemoteGenerator(spec, 5, 2), [Draw(100 + i, 0, 2, (0, 1)) for i in range(2)]
    answers = []
    for centre, draw in zip("AB", draws, strict=True):
        fakes = {f"fake.{phase}": images for phase, images in server.images(0, draw).items()}
        server.follow_statistics()
        gradients, *_ = discriminator_steps(
            spec, here.patches(centre), fakes, {}, exchange="images", rules=GradientRules(), build_seed=5, seed=draw.seed,
            from_step=0, batches=2, device="cpu", precision="fp32",
        )  # fmt: skip
        answers.append(server.gradients_of(0, draw, gradients["images"]))
    for batch in range(2):
        server.step([0.75 * a + 0.25 * b for a, b in zip(answers[0][batch], answers[1][batch], strict=True)])
    same_arrays(shared.generators["arm", "task"].weights, server.model.shared_arrays(), within=1e-6)


# -- asynchrony ----------------------------------------------------------------------------------------------


def test_staleness_counts_the_updates_since_a_job_was_sent(lab, share):
    here = lab(A=12, B=12)
    clock = here.clock({"B": Availability(speed=0.3)})
    (shared,) = share(
        here.centres(), here.dm_gan(here.spec(ema=None), DmGANSettings(updates=7, batches_per_job=1), clock)
    )
    rows = [(row.centre, row.number, row.finished_s, row.staleness) for row in shared.federations[0].rows]
    # A answers every second; B after 3.33 s, to version 0, when A has made three updates.
    assert rows[:5] == [
        ("A", 0, 1, 0), ("A", 1, 2, 0), ("A", 2, 3, 0), ("B", 0, pytest.approx(10 / 3), 3), ("A", 3, 4, 1),
    ]  # fmt: skip
    assert shared.federations[0].summary.used == 7


def test_answers_that_are_too_old_are_dropped_and_their_centre_goes_on(lab, share):
    here = lab(A=12, B=12)
    clock = here.clock({"B": Availability(speed=0.3)})
    settings = DmGANSettings(updates=8, batches_per_job=1, max_staleness=1)
    centres = here.centres()
    (shared,) = share(centres, here.dm_gan(here.spec(ema=None), settings, clock))
    found = shared.federations[0].summary
    rows = [row for row in shared.federations[0].rows if row.centre == "B"]
    assert found.stale == len(rows) > 0 and {row.outcome for row in rows} == {"stale"}
    steps = [job.body["from_step"] for job in centres.sent("train_discriminator") if job.centre == "B"]
    assert steps == list(range(len(steps))), "its discriminator went on"


@pytest.mark.parametrize("exchange", ["images", "generator"])
def test_a_quorum_waits_for_so_many_answers_and_no_longer_than_its_time(exchange, lab, share):
    here = lab(A=12, B=12)
    slow = {"B": Availability(speed=0.05)}
    common = {"updates": 2, "batches_per_job": 1, "quorum": 2, "exchange": exchange, "steps": "mean"}
    (waited,) = share(
        here.centres("a"),
        here.dm_gan(here.spec(ema=None), DmGANSettings(**common, update_timeout_s=4), here.clock(slow)),
    )
    times = sorted({row.finished_s for row in waited.federations[0].rows})
    assert times[:2] == [1, 2], "A's second answer makes the quorum"
    lost = {"A": Availability(outages=((1.5, math.inf),)), **slow}
    (alone,) = share(
        here.centres("b"),
        here.dm_gan(here.spec(ema=None), DmGANSettings(**common, update_timeout_s=4), here.clock(lost)),
    )
    assert alone.federations[0].rounds == 2 and list(alone.federations[0].summary.gone) == ["A"]


@pytest.mark.parametrize("lock_step", [False, True])
def test_a_centre_that_goes_for_good_and_one_that_loses_jobs(lock_step, lab, share):
    here = lab(A=12, B=12, C=12)
    faults = {"B": Availability(dropout=0.4), "C": Availability(outages=((2.5, math.inf),))}
    settings = DmGANSettings(updates=9 if lock_step else 14, batches_per_job=1, lock_step=lock_step)
    (shared,) = share(here.centres(), here.dm_gan(here.spec(ema=None), settings, here.clock(faults)))
    found = shared.federations[0]
    assert found.rounds == settings.updates and list(found.summary.gone) == ["C"] and found.summary.lost > 1


def test_when_nobody_is_left_the_training_fails_with_one_line(lab, share):
    here = lab(A=12)
    clock = here.clock({"A": Availability(outages=((2.5, math.inf),))})
    (shared,) = share(
        here.centres(), here.dm_gan(here.spec(ema=None), DmGANSettings(updates=9, batches_per_job=1), clock)
    )
    assert not shared.generators
    assert "no centre answers any more at update 2 of 9 (gone: A from" in shared.problems[0]


# -- answers that cannot be used, states ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "code", "transport"),
    [
        ("shape", "wrong_arrays", "fp32"), ("name", "wrong_arrays", "fp32"), ("nan", "not_finite", "fp32"),
        ("no scales", "wrong_arrays", "int8"), ("unit", "foreign_reply", "fp32"), ("no body", "bad_answer", "fp32"),
        ("huge", "not_finite", "int8"), ("code", "exception", "fp32"),
    ],
)  # fmt: skip
def test_a_bad_answer_is_refused_and_who_gives_only_such_is_asked_no_more(what, code, transport, lab, share):
    here = lab(A=12, B=12)

    def spoil(job, reply):
        if job.kind != "train_discriminator" or job.centre != "B":
            return None
        arrays = dict(reply.arrays)
        if what == "shape":
            arrays["gradient.images"] = arrays["gradient.images"][:, :1]
        elif what == "name":
            arrays["gradient.more"] = arrays["gradient.images"]
        elif what == "nan":
            arrays["gradient.images"] = arrays["gradient.images"] * np.float32(np.nan)
        elif what == "huge":  # finite as it travels, and infinite once it is decoded
            arrays["gradient.images"] = np.full_like(arrays["gradient.images"], 127)
            arrays["gradient.images.int8_scale"] = np.full_like(arrays["gradient.images.int8_scale"], 3e38)
        elif what == "no scales":
            del arrays["gradient.images.int8_scale"]
        changes = {"unit": {"unit": "other"}, "no body": {"body": {}}, "code": {"code": "exception", "arrays": {}}}
        return replace(reply, **({"arrays": arrays} | changes.get(what, {})))

    settings = DmGANSettings(updates=8, batches_per_job=1, refusals=3, transport=transport)
    (shared,) = share(here.centres(spoil=spoil), here.dm_gan(here.spec(ema=None), settings))
    found = shared.federations[0].summary
    assert found.refused == {f"B: {code}": 3} and list(found.gone) == ["B"] and found.used == 8
    assert {row.outcome for row in shared.federations[0].rows if row.centre == "B"} == {"refused"}
    assert shared.generators["arm", "task"].centres == ("A",), "B's patients are in no gradient"


def test_a_centre_that_comes_back_with_an_empty_state_begins_a_new_discriminator(lab, share):
    import shutil

    here = lab(A=12, B=12)
    centres = here.centres()

    def wipe(job, reply):
        if job.kind == "train_discriminator" and job.centre == "B" and job.body["from_step"] == 1:
            shutil.rmtree(here.folder / "run" / "centres" / "B" / "states")
        return None

    centres.spoil = wipe
    (shared,) = share(
        centres, here.dm_gan(here.spec(ema=None), DmGANSettings(updates=4, batches_per_job=1, lock_step=True))
    )
    found = shared.federations[0]
    assert found.summary.state_lost == [("B", 2)] and found.rounds == 4 and found.summary.used == 8
    asked = [(j.body["from_step"], j.expects_state) for j in centres.sent("train_discriminator") if j.centre == "B"]
    assert asked == [(0, 0), (1, 1), (2, 2), (2, 0), (3, 1)]


@pytest.mark.parametrize(("updates", "transport"), [(1, "fp32"), (3, "fp32"), (3, "fp16")])
@pytest.mark.filterwarnings("ignore:invalid value", "ignore:overflow")
def test_a_generator_that_diverges_ends_its_training_and_not_the_run(updates, transport, lab, share):
    here = lab(A=12)
    spec = here.spec("wgan_gp", ema=None, learning_rate=1e38 if updates == 3 else 1e39)

    def plausible(job, reply):  # the discriminator would notice first
        if job.kind != "train_discriminator":
            return None
        gradient = np.ones_like(job.arrays["fake.generator"], dtype=np.float32)
        body = {
            "transport_error": 0.0,
            "scalars": {},
            "data_card": {},
            "trained_on": {"boxes": 12, "patients": 12},
        }
        return replace(
            reply, code="ok", numbers={}, body=body, arrays=encode_gradients({"images": gradient}, transport)
        )

    settings = DmGANSettings(updates=updates, batches_per_job=1, transport=transport)
    (shared,) = share(here.centres(spoil=plausible), here.dm_gan(spec, settings))
    assert shared.problems == ["arm: after update 1: the generator is not finite; lower learning_rate"]
    assert not shared.generators


# -- what leaves a centre ------------------------------------------------------------------------------------


@given(clip=st.floats(1e-3, 1e3), scale=st.floats(1e-6, 1e4), seed=st.integers(0, 99))
def test_no_image_gradient_leaves_with_a_larger_norm_than_clip(clip, scale, seed):
    images = (np.random.default_rng(seed).normal(size=(2, 3, 1, 4, 4)) * scale).astype(np.float32)
    out = protected({"images": images}, GradientRules(clip=clip), 1, 0)["images"]
    before, after = (np.sqrt((x.astype(np.float64) ** 2).sum((2, 3, 4))) for x in (images, out))
    np.testing.assert_allclose(after, np.minimum(before, clip), rtol=1e-5)
    assert out.dtype == np.float32


@given(clip=st.floats(1e-3, 1e3), scale=st.floats(1e-6, 1e4), seed=st.integers(0, 99))
def test_gradients_of_weights_are_clipped_as_one(clip, scale, seed):
    rng = np.random.default_rng(seed)
    gradients = {
        "a": (rng.normal(size=(3, 4)) * scale).astype(np.float32),
        "b": (rng.normal(size=5) * scale).astype(np.float32),
    }
    out = protected(gradients, GradientRules(clip=clip), 1, 0)
    norm = lambda g: math.sqrt(sum(float((x.astype(np.float64) ** 2).sum()) for x in g.values()))  # noqa: E731
    assert norm(out) == pytest.approx(min(norm(gradients), clip), rel=1e-5)
    np.testing.assert_allclose(out["a"] * norm(gradients), gradients["a"] * norm(out), rtol=1e-4, atol=1e-12)


def test_noise_has_the_standard_deviation_that_was_asked_for_and_its_own_stream():
    zeros = {"images": np.zeros((4, 16, 1, 16, 16), np.float32)}
    out = [protected(zeros, GradientRules(clip=2.0, noise=0.3), 1, step)["images"] for step in (0, 1, 1)]
    for noise in out[:2]:
        assert noise.std() == pytest.approx(0.6, rel=0.03) and abs(noise.mean()) < 0.03
    assert np.array_equal(out[1], out[2]) and not np.array_equal(out[0], out[1])
    assert protected(zeros, GradientRules(), 1, 0)["images"] is zeros["images"]


@given(
    size=st.sampled_from([1e-12, 1e-6, 1.0, 1e6]),
    how=st.sampled_from(["fp32", "fp16", "int8"]),
    seed=st.integers(0, 50),
)
def test_gradients_travel_within_the_bounds_of_their_format(size, how, seed):
    rng = np.random.default_rng(seed)
    gradients = {
        n: (rng.normal(size=s) * size).astype(np.float32) for n, s in (("images", (2, 3, 1, 4, 4)), ("bias", (5,)))
    }
    arrays = encode_gradients(gradients, how)
    back = decode_gradients(arrays, how)
    assert back.keys() == gradients.keys()
    for name, gradient in gradients.items():
        largest = np.abs(gradient).max()
        bound = {"fp32": 0, "fp16": 2.0**-11, "int8": 1 / 254}[how] * largest * 1.001
        assert np.abs(back[name] - gradient).max() <= bound
        if how == "fp16":
            assert arrays["gradient." + name].dtype == np.float16


@given(
    batches=st.integers(1, 64), per_batch_s=st.floats(0.05, 2), around_s=st.floats(0.1, 40),
)  # fmt: skip
def test_job_sizes_move_towards_four_fifths_of_the_time_computing(batches, per_batch_s, around_s):
    def share_of(n):
        return n * per_batch_s / (n * per_batch_s + around_s)

    reached = [batches]
    for _ in range(30):
        n = reached[-1]
        reached.append(adapted(n, n * per_batch_s, Fate(0, 0, n * per_batch_s + around_s)))
    ideal = min(LARGEST_JOB, max(1, 4 * around_s / per_batch_s))
    assert reached[-1] == reached[-2] and 1 <= reached[-1] <= LARGEST_JOB
    # Rounding stops within a few batches of the ideal, where the share is flat.
    assert share_of(reached[-1]) == pytest.approx(share_of(ideal), abs=0.12)
    first = reached[1]
    assert min(batches, ideal) - 1 <= first <= max(batches, ideal) + 1, "one message moves it half of the way"


@pytest.mark.parametrize(("model", "transport"), [("dcgan", "fp32"), ("dcgan", "int8"), ("wgan_gp", "fp16")])
def test_bytes_of_a_job_are_predicted_and_do_not_depend_on_the_networks(model, transport, lab, share):
    here = lab(A=12)
    settings, sizes = DmGANSettings(updates=1, batches_per_job=3, transport=transport), []
    for width in (2, 6):
        spec = here.spec(model, ema=None)
        spec = spec.model_copy(update={"hyper_parameters": spec.hyper_parameters | {"width": width}})
        centres = here.centres(f"{width}")
        share(centres, here.dm_gan(spec, settings))
        (job,) = centres.sent("train_discriminator")
        (reply,) = [r for r in centres.replies if r.kind == "train_discriminator"]
        sizes.append(tuple(sum(a.nbytes for a in arrays.values()) for arrays in (job.arrays, reply.arrays)))
    assert sizes[0] == sizes[1]
    body = DISCRIMINATE.parse(job.body)
    assert sizes[0] == tuple(map(layout_bytes, (DISCRIMINATE.layout_in(body), DISCRIMINATE.layout_out(body))))
    assert sizes[0][0] == layout_bytes(images_layout(spec, 3, transport))
    one_batch = 4 * SIZE**2 * {"fp32": 4, "fp16": 2, "int8": 1}[transport]
    batches = (3 * (2 + 1), 3) if model == "wgan_gp" else (3 * 2, 3)  # its critic takes two steps
    assert sizes[0] == pytest.approx(tuple(number * one_batch for number in batches), rel=0.01), "images alone"


# -- restarts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop_after", [20, 23, 26])
def test_a_resumed_training_does_not_ask_again_who_is_gone_for_good(stop_after, measured_lab, share):
    here, faults = measured_lab, {"B": Availability(outages=((2.5, math.inf),))}
    whole, resumed = whole_and_resumed(here, share, DmGANSettings(updates=14, batches_per_job=1), faults, stop_after)
    assert list(whole.federations[0].summary.gone) == ["B"]
    assert resumed.federations[0] == whole.federations[0]


@pytest.mark.parametrize("exchange", ["images", "generator"])
@pytest.mark.parametrize("stop_after", [8, 13])
def test_a_job_that_was_under_way_is_made_again_from_its_own_version(stop_after, exchange, measured_lab, share):
    """B is slow: at the kill its job is of an older version than the generator that is resumed."""
    here, faults = measured_lab, {"B": Availability(speed=0.3)}
    settings = DmGANSettings(updates=8, batches_per_job=1, exchange=exchange, steps="mean")
    whole, resumed = whole_and_resumed(here, share, settings, faults, stop_after)
    (made,), (again,) = whole.generators.values(), resumed.generators.values()
    assert made.unit == again.unit
    assert all(np.array_equal(made.weights[name], again.weights[name]) for name in made.weights)
    assert resumed.federations[0] == whole.federations[0]


@pytest.fixture
def measured_lab(lab, monkeypatch):
    """A laboratory in which progress is recorded after every update: single answers are not recorded here, as a run's are."""
    monkeypatch.setattr("strategies.dm_gan.server._SAVING", 0)
    here = lab(A=12, B=12)
    plain = here.fidelity
    here.fidelity = lambda spec: plain(spec, spaces=("texture",))
    return here


def whole_and_resumed(here, share, settings, faults, stop_after):
    """What a training makes undisturbed, and killed after so many jobs and resumed."""

    def run(centres):
        return share(centres, here.dm_gan(here.spec(ema=None), settings, here.clock(faults)))[0]

    whole, centres = run(here.centres("whole")), here.centres("killed", stop_after=stop_after)
    centres.queue = Reluctant()
    with pytest.raises(KeyboardInterrupt):
        run(centres)
    centres.stop_after, centres.queue = None, []
    return whole, run(centres)


class Reluctant(list):
    """A queue of jobs in which B's training waits for everything else."""

    def pop(self, index=0):
        others = [i for i, job in enumerate(self) if (job.centre, job.kind) != ("B", "train_discriminator")]
        return super().pop(others[0] if others else 0)
