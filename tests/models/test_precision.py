"""The precision probe: measured once, remembered, and never measured where bf16 cannot win."""

import json

import pytest
import torch
from growing_gan import GrowingGAN, GrowingModel

from models import GENERATIVE_MODELS, ClassifierSpec, GeneratorSpec, faster_precision, precision, probe_precision


@pytest.fixture(autouse=True)
def with_bf16(monkeypatch):
    monkeypatch.setattr(precision, "bf16_flags", lambda: ["amx_bf16"])


@pytest.fixture
def step_of(monkeypatch):
    """Function: a step that takes so many seconds of a clock that only steps advance."""
    now = [0.0]
    monkeypatch.setattr(precision.time, "perf_counter", lambda: now[0])

    def make(seconds, calls):
        def step():
            calls.append(seconds)
            now[0] += seconds

        return step

    return make


def in_turn(fp32, bf16):
    """What makes the step of a precision."""
    return {"fp32": fp32, "bf16": bf16}.__getitem__


@pytest.mark.parametrize(("bf16", "expected"), [(0.5, "bf16"), (0.86, "bf16"), (0.88, "fp32"), (2.0, "fp32")])
def test_bf16_must_be_clearly_faster(tmp_path, step_of, bf16, expected):
    assert faster_precision("k", in_turn(step_of(1.0, []), step_of(bf16, [])), tmp_path) == expected


def test_the_first_answer_stands(tmp_path, step_of):
    calls = []
    assert faster_precision("k", in_turn(step_of(1.0, calls), step_of(0.1, calls)), tmp_path) == "bf16"
    measured = len(calls)
    # Steps are taken in turns, so that load of the machine falls on both.
    assert calls[:4] == [1.0, 0.1, 1.0, 0.1]
    assert faster_precision("k", in_turn(step_of(0.1, calls), step_of(1.0, calls)), tmp_path) == "bf16"
    assert len(calls) == measured

    def fail(precision):
        raise AssertionError("a model was built, and is not needed")

    assert faster_precision("k", fail, tmp_path) == "bf16"
    faster_precision("other", in_turn(step_of(0.1, calls), step_of(0.1, calls)), tmp_path)
    assert len(calls) == 2 * measured
    stored = [json.loads(p.read_text()) for p in (tmp_path / "precision").glob("*.json")]
    assert {s["key"] for s in stored} == {"k", "other"} and all(s["processor"].endswith("amx_bf16") for s in stored)


def test_nothing_is_measured_without_the_instructions(tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "bf16_flags", list)

    def fail(precision):
        raise AssertionError("measured")

    assert faster_precision("k", fail, tmp_path) == "fp32"
    assert not list(tmp_path.iterdir())


GAN = GeneratorSpec.model_validate(
    {
        "model": "dcgan",
        "image_size": 32,
        "classes": ["healthy", "lesion"],
        "hyper_parameters": {"width": 2},
        "training": {"batch_size": 2},
    }
).model_dump(mode="json")
CNN = ClassifierSpec(model="cnn_small", image_size=16, channels=1, num_classes=2).model_dump(mode="json")


@pytest.fixture
def slow(monkeypatch):
    """The dtype in which a convolution takes ten seconds instead of one, on a clock that only convolutions advance."""
    now, dtypes = [0.0], []

    def count(module, _, output):
        if isinstance(module, torch.nn.Conv2d):
            now[0] += 10 if output.dtype in dtypes else 1

    monkeypatch.setattr(precision.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(precision, "_ROUNDS", 1)
    hook = torch.nn.modules.module.register_module_forward_hook(count)
    yield dtypes
    hook.remove()


@pytest.mark.parametrize("spec", [{"generator": GAN}, {"classifier": CNN}], ids=["generator", "classifier"])
@pytest.mark.parametrize(("dtype", "expected"), [(torch.float32, "bf16"), (torch.bfloat16, "fp32")])
def test_models_are_probed_by_training_steps_in_both_precisions(tmp_path, slow, spec, dtype, expected):
    slow.append(dtype)
    before = torch.get_rng_state()
    assert probe_precision(spec, device="cpu", setting="auto", cache=tmp_path) == expected
    assert len(list((tmp_path / "precision").glob("*.json"))) == 1
    assert torch.equal(before, torch.get_rng_state())


def test_a_setting_is_obeyed(tmp_path):
    assert probe_precision({"generator": GAN}, device="cpu", setting="bf16", cache=tmp_path) == "bf16"
    assert not list(tmp_path.iterdir())


STAGES = [
    {"steps": 3, "image_size": 8, "batch_size": 6},
    {"steps": 4, "image_size": 16, "batch_size": 4, "reset_optimizer": True},
    {"steps": 2, "image_size": 32, "batch_size": 3},
]


def growing(stages=STAGES, **training):
    whole = {"steps": 9, "batch_size": 4, "growing": stages} | training
    values = {"model": "growing", "image_size": 32, "classes": ["healthy", "lesion"], "training": whole}
    return {"generator": GeneratorSpec.model_validate(values).model_dump(mode="json")}


@pytest.fixture
def grows(monkeypatch):
    monkeypatch.setitem(GENERATIVE_MODELS.builtin, "growing", GrowingGAN)


@pytest.mark.parametrize("sampling", ["permutation", "poisson"])
def test_a_model_that_grows_is_probed_at_its_full_size(tmp_path, slow, grows, monkeypatch, sampling):
    """Its largest batch is of another stage, and larger than `batch_size`."""
    batches, whole = [], GrowingModel.on_both

    def on_both(model, batch, rng):
        batches.append(tuple(batch.real().shape))
        return whole(model, batch, rng)

    monkeypatch.setattr(GrowingModel, "on_both", on_both)
    slow.append(torch.float32)
    assert probe_precision(growing(sampling=sampling), device="cpu", setting="auto", cache=tmp_path) == "bf16"
    # Two critic steps, of one step that warms up and one that is timed, in both precisions.
    assert batches == [(3, 1, 32, 32)] * 8


def keys(cache):
    return {json.loads(path.read_text())["key"] for path in (cache / "precision").glob("*.json")}


def test_another_schedule_is_measured_by_itself(tmp_path, slow, grows):
    others = [STAGES[:2] + [STAGES[2] | {"batch_size": 5}], [STAGES[0], STAGES[2] | {"steps": 6}], []]
    for number, stages in enumerate([STAGES, *others], 1):
        for _ in range(2):
            probe_precision(growing(stages), device="cpu", setting="auto", cache=tmp_path)
        assert len(keys(tmp_path)) == number
    assert sum(" growing [" in key for key in keys(tmp_path)) == 3


@pytest.mark.parametrize(
    ("group", "text"),
    [
        ("models", "from models.dcgan import DCGAN\n\nclass Thing(DCGAN):\n    pass\n"),
        ("classifiers", "from models.classifiers import CLASSIFIERS\n\nThing = CLASSIFIERS['cnn_small']\n"),
    ],
    ids=["generator", "classifier"],
)
def test_another_version_of_a_plugin_is_measured_by_itself(tmp_path, slow, install, site, group, text):
    install("my-things", {group: {"thing": "my_things.things:Thing"}}, text=text)
    spec = {"generator": GAN | {"model": "thing"}} if group == "models" else {"classifier": CNN | {"model": "thing"}}
    for number in (1, 2):
        for _ in range(2):
            probe_precision(spec, device="cpu", setting="auto", cache=tmp_path)
        assert len(keys(tmp_path)) == number
        with (site / "my_things" / "things.py").open("a") as file:
            file.write("# changed\n")
    assert all(" plug-in 'my-things' 1.0 (digest " in key for key in keys(tmp_path))
