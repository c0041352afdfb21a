"""Kinds of jobs: bodies and arrays that do not fit are found by name, and what is predicted of a job is what travels."""

import json
from collections import Counter, defaultdict
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients import policy
from clients.node import Node, Refusal
from federation.wire.job import Job, Reply
from federation.wire.units import Units
from scenarios.plan import Plan
from strategies import KINDS, STRATEGIES
from strategies.ask import Ask, anything, distinct
from strategies.bodies import Compute
from strategies.fedavg_classifier.local import SUM_KINDS as CLASSIFIER_SUMS
from strategies.fedavg_gan.local import SUM_KINDS as GAN_SUMS
from strategies.kind import Array, BadBody, Body, Field, Kind, Received, Sent, layout_of

# -- a kind to try things with -----------------------------------------------------------------------------------------


class Inner(Body):
    size: int
    how: Literal["a", "b"]


class Toy(Body):
    width: int
    inner: Inner
    send: bool
    names: tuple[str, ...]
    compute: Compute


def of_width(name):
    return lambda body: {name: Array((body.width, None), "float32")}


def toy_kind(name="toy"):
    return Kind(
        name=name, title="toy", phase="share", body=Toy, work=lambda here, body, arrays: ({}, {}),
        answer=(Field("counts.*", "counts", "how many"), Field("loss", "number", "how well")),
        sends=(
            Sent("weights.*", "weights", "a model", "model", layout=of_width("weights.w"), sent_if=lambda body: body.send),
            Sent("label", "number", "one", layout=lambda body: {"label": Array((), "int64")}),
        ),
        receives=(
            Received("given.*", of_width("given.w")),
            Received("more.*", lambda body: {} if "more" not in body.names else of_width("more.a")(body) | of_width("more.b")(body)),
        ),
    )  # fmt: skip


TOY = toy_kind()
BODY = {
    "width": 3, "inner": {"size": 2, "how": "a"}, "send": True, "names": ["x"],
    "compute": {"device": "cpu", "threads": 2, "precision": "fp32"},
}  # fmt: skip


def zeros(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


# -- bodies ------------------------------------------------------------------------------------------------------------


def test_a_complete_body_is_parsed_and_travels_unchanged():
    body = TOY.parse(BODY)
    assert (body.inner.size, body.names, body.compute.options) == (2, ("x",), {"device": "cpu", "precision": "fp32"})
    assert body.model_dump(mode="json") == BODY


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"width": None}, "width"), ({"width": "wide"}, "width"), ({"more": 1}, "more"), ({"inner": {"size": 1}}, "inner.how"),
        ({"inner": {"size": 1, "how": "c"}}, "inner.how"), ({"inner": {"size": 1, "how": "a", "x": 2}}, "inner.x"),
        ({"names": "x"}, "names"), ({"names": [1]}, "names.0"), ({"compute": {"device": "cpu", "threads": 1}}, "compute.precision"),
    ],
)  # fmt: skip
def test_a_body_that_is_not_of_its_kind_is_refused_with_the_key(changes, key):
    with pytest.raises(BadBody) as problem:
        TOY.parse(BODY | changes)
    assert (problem.value.key, problem.value.code) == (key, "bad_body")
    assert problem.value.numbers == {"kind": "toy", "key": key}
    assert str(problem.value).startswith(f"toy: {key}: ")


@pytest.mark.parametrize("key", BODY)
def test_a_missing_key_is_named(key):
    with pytest.raises(BadBody) as problem:
        TOY.parse({name: value for name, value in BODY.items() if name != key})
    assert problem.value.key == key


def test_of_several_faults_one_is_named_and_a_long_key_is_cut_in_what_travels():
    with pytest.raises(BadBody) as problem:
        TOY.parse({"x" * 200: 1, **BODY})
    assert problem.value.key == "x" * 200 and problem.value.numbers["key"] == "x" * 64
    with pytest.raises(BadBody) as problem:
        TOY.parse({"width": 3})
    assert problem.value.key == "inner"


# -- arrays ------------------------------------------------------------------------------------------------------------

GIVEN = {"given.w": zeros(3, 5)}


@pytest.mark.parametrize(
    ("arrays", "name"),
    [
        (GIVEN, ""),
        ({"given.w": zeros(3, 0)}, ""),  # a side of None is any
        ({}, "given.w"),
        (GIVEN | {"given.v": zeros(3, 5)}, "given.v"),
        (GIVEN | {"else": zeros(3, 5)}, "else"),
        ({"given.w": zeros(3, 5, dtype=np.float64)}, "given.w"),
        ({"given.w": zeros(3, 5, dtype=np.float16)}, "given.w"),
        ({"given.w": zeros(4, 5)}, "given.w"),
        ({"given.w": zeros(3)}, "given.w"),
        ({"given.w": zeros(3, 5, 1)}, "given.w"),
        (GIVEN | {"more.a": zeros(3, 2), "more.b": zeros(3, 2)}, "more.a"),
    ],
)  # fmt: skip
def test_arrays_that_come_with_a_job_must_be_those_that_are_declared(arrays, name):
    assert TOY.misfit_in(TOY.parse(BODY), arrays) == name


@pytest.mark.parametrize(
    ("arrays", "name"),
    [
        (GIVEN | {"more.a": zeros(3, 2), "more.b": zeros(3, 2)}, ""),
        (GIVEN | {"more.a": zeros(3, 2)}, "more.b"),
        (GIVEN | {"more.a": zeros(3, 2), "more.b": zeros(2, 2)}, "more.b"),
        (GIVEN | {"more.a": zeros(3, 2), "more.b": zeros(3, 2), "more.c": zeros(3, 2)}, "more.c"),
        (GIVEN, "more.a"),
    ],
)  # fmt: skip
def test_arrays_that_a_body_asks_for_are_all_there_or_none_is(arrays, name):
    assert TOY.misfit_in(TOY.parse(BODY | {"names": ["more"]}), arrays) == name


@pytest.mark.parametrize(
    ("send", "arrays", "name"),
    [
        (True, {"weights.w": zeros(3, 1), "label": zeros(dtype=np.int64)}, ""),
        (True, {"label": zeros(dtype=np.int64)}, "weights.w"),
        (False, {"label": zeros(dtype=np.int64)}, ""),
        (False, {"weights.w": zeros(3, 1), "label": zeros(dtype=np.int64)}, "weights.w"),
        (False, {}, "label"),
        (False, {"label": zeros(1, dtype=np.int64)}, "label"),
        (False, {"label": zeros(dtype=np.int32)}, "label"),
    ],
)
def test_arrays_of_an_answer_likewise_and_only_where_they_are_sent(send, arrays, name):
    assert TOY.misfit_out(TOY.parse(BODY | {"send": send}), arrays) == name


def test_a_model_is_released_only_where_it_is_sent():
    assert TOY.releases_model(TOY.parse(BODY)) and not TOY.releases_model(TOY.parse(BODY | {"send": False}))


@given(shape=st.lists(st.integers(0, 4), max_size=4), dtype=st.sampled_from(["float16", "float32", "int64", "uint8"]))
def test_a_layout_is_that_of_its_arrays(shape, dtype):
    array = np.zeros(shape, dtype)
    declared = layout_of({"x": array}, "a.")["a.x"]
    assert declared == Array(tuple(shape), dtype) and declared.nbytes == array.nbytes and declared.fits(array)
    assert not Array((*shape, 1), dtype).fits(array) and not Array(tuple(shape), "int8").fits(array)
    unknown = Array((None,) * len(shape), dtype)
    assert unknown.fits(array) and (unknown.nbytes is None) == bool(shape)


# -- what is declared of an answer -------------------------------------------------------------------------------------


def undeclared(kind, body=None, **arrays):
    """As of an answer; `__` stands for the point in an array's name."""
    return KINDS[kind].undeclared(body or {}, {name.replace("__", "."): array for name, array in arrays.items()})


ONE = np.ones(1)


@pytest.mark.parametrize(
    ("found", "field"),
    [
        (undeclared("train_generator", {"history": {"step": [1]}, "data_card": {"boxes": {"a.b": 1}}}, weights__x__y=ONE), ""),
        (undeclared("train_generator", {}, pixels=ONE), "pixels"),
        (undeclared("train_generator", {}, real__pixels=ONE), "real.pixels"),
        (undeclared("train_generator", {}, weights__x=[1.0]), "weights.x"),  # a list is not an array
        (undeclared("train_generator", {"patients": ["Doe"]}), "patients"),
        (undeclared("survey_data", {"tasks": {"lesion": {"card": {}, "names": ["Doe"]}}}), "tasks.lesion.names"),
        (undeclared("survey_data", {"tasks": {"lesion": {"card": {"x": {"y": 1}}}}, "precision": {"generator/a/b": "fp32"}}), ""),
        (undeclared("survey_data", {"tasks": {}}), "tasks"),
        (undeclared("test_classifier", {"metrics": {"auroc": 1.0}}, weights__a=ONE), "weights.a"),
        (undeclared("feature_sums", {"images": 9}, texture__first__sum=ONE), ""),
        (undeclared("feature_sums", {"images": 9}, texture__first__pixels=ONE), "texture.first.pixels"),
        (undeclared("send_patches", {"counts": {"0": 1}}), ""),
        (undeclared("send_patches", {"counts": {"0": 1}, "patients": ["Doe"]}), "patients"),
        # What is empty is covered by what may be in it.
        (undeclared("measure_generator", {"distances": {}}), ""),
        (undeclared("measure_generator", {"names": {}}), "names"),
    ],
)  # fmt: skip
def test_what_is_not_declared_is_found(found, field):
    assert found == field


def test_an_undeclared_field_is_refused_by_a_deployed_node_and_not_in_a_simulation(tmp_path):
    job = Job("s", "u", "B", "survey_data", {})
    reply = Reply("s", "u", "B", "survey_data", body={"names": ["Doe"]})
    with pytest.raises(Refusal) as refusal:
        policy.release(Node("B", tmp_path, tmp_path, deployed=True), job, reply)
    assert (refusal.value.code, refusal.value.numbers) == (
        "undeclared_field",
        {"kind": "survey_data", "field": "names"},
    )
    assert policy.release(Node("B", tmp_path, tmp_path), job, reply) is reply


def test_every_kind_says_what_its_answer_tells_and_only_real_patches_are_pixels():
    assert {name for name, kind in KINDS.items() if kind.pixels} == {"send_patches", "receive_patches"}
    for name, kind in KINDS.items():
        fields = kind.fields()
        assert kind.name == name and fields, "every answer says something"
        assert len({field.name for field in fields}) == len(fields)
        assert all(field.tells and field.type for field in fields)


# -- asks --------------------------------------------------------------------------------------------------------------


def toy_ask(kind=TOY, free=None, **changes):
    free = free if free is not None else {"width": lambda body: body.width in (3, 4), "names": anything}
    fixed = {key: value for key, value in TOY.parse(BODY) if key not in free}
    return Ask(kind, "s", "A", "task", fixed, free, **changes)


def test_an_ask_holds_exactly_the_keys_of_its_body():
    fixed = {key: value for key, value in TOY.parse(BODY) if key != "width"}
    for wrong in ({}, {"width": anything, "other": anything}, {"width": anything, "send": anything}):
        with pytest.raises(AssertionError, match="differ from the declared body"):
            Ask(TOY, "s", "A", "task", fixed, wrong)
    assert "width" not in Ask(TOY, "s", "A", "task", fixed, {"width": anything}).json


def test_what_an_ask_fills_in_is_checked_and_is_not_different_from_it():
    ask = toy_ask()
    body = ask.filled(width=4, names=("y", "z"))
    assert body == BODY | {"width": 4, "names": ["y", "z"]} and not ask.difference("s", body)
    job = ask.job(Units("study", "", {}, {}), width=4, names=("y", "z"), arrays=GIVEN, label="x")
    assert (job.kind, job.centre, job.body, job.label) == ("toy", "A", body, "x") and job.arrays == GIVEN
    good = {"width": 3, "names": ()}
    for wrong, key in ((good | {"width": "w"}, "width"), ({"width": 3}, "names"), (good | {"x": 1}, "x")):
        with pytest.raises(BadBody) as problem:
            ask.filled(**wrong)
        assert problem.value.key == key


@pytest.mark.parametrize(
    ("changes", "keys"),
    [
        ({}, []), ({"names": ["anything"], "width": 4}, []),
        ({"width": 5}, ["width"]), ({"width": None}, ["width"]), ({"width": "w"}, ["width"]),
        ({"inner": {"size": 3, "how": "a"}}, ["inner"]), ({"inner": {"size": 2, "how": "a", "more": 1}}, ["inner"]),
        ({"inner": None}, ["inner"]), ({"send": 1}, ["send"]), ({"send": float("nan")}, ["send"]),
        ({"other": 1}, ["other"]), ({"send": False, "other": 1, "width": 9}, ["send", "other"]),
        ({"names": [3]}, ["names"]),
        # Device and precision are the centre's own affair; threads are not.
        ({"compute": BODY["compute"] | {"device": "cuda", "precision": "bf16"}}, []),
        ({"compute": BODY["compute"] | {"threads": 64}}, ["compute.threads"]),
        ({"compute": BODY["compute"] | {"more": 1}}, ["compute"]), ({"compute": "all"}, ["compute"]),
        ({"compute": BODY["compute"] | {"precision": "fp8"}}, ["compute"]),
    ],
)  # fmt: skip
def test_the_first_key_in_which_a_job_differs_is_named(changes, keys):
    assert toy_ask().difference("s", BODY | changes) == keys


@pytest.mark.parametrize("key", BODY)
def test_a_job_without_a_key_differs_in_it(key):
    assert toy_ask().difference("s", {name: value for name, value in BODY.items() if name != key}) == [key]


def test_all_keys_that_are_missing_are_named():
    assert toy_ask().difference("s", {"inner": BODY["inner"], "send": True}) == ["compute", "width", "names"]


def test_a_job_of_another_strategy_differs_in_that():
    assert toy_ask().difference("other", BODY | {"send": False}) == ["strategy", "send"]


def test_a_check_sees_the_whole_body():
    free = {"width": lambda body: body.width == body.inner.size + 1, "names": lambda body: len(body.names) < body.width}
    ask = toy_ask(free=free)
    assert not ask.difference("s", BODY) and ask.difference("s", BODY | {"names": list("abc")}) == ["names"]
    assert ask.difference("s", BODY | {"width": 1}) == ["width", "names"]


def test_bytes_follow_from_what_is_fixed_and_from_examples_and_are_unknown_where_a_side_is():
    assert toy_ask(free={"inner": anything}).bytes_down is None, "a side of None"
    kind = Kind(
        name="known", title="", phase="share", body=Toy, work=None,
        sends=(Sent("label", "", "", layout=lambda body: {"label": Array((), "int64")}),),
        receives=(Received("x", lambda body: {"x": Array((body.width, 2), "float16")}),
                  Received("y", lambda body: of_width("y")(body) if body.width < 0 else {})),
    )  # fmt: skip
    known = toy_ask(kind, {"names": anything})
    assert (known.bytes_down, known.bytes_up) == (3 * 2 * 2, 8)
    assert toy_ask(kind, example={"width": 5}).bytes_down == 5 * 2 * 2


def test_asks_that_are_the_same_job_stand_once():
    twice, once = toy_ask(same="a"), toy_ask()
    other_kind, other_same = toy_ask(toy_kind("other"), same="a"), toy_ask(same="b")
    elsewhere = Ask(TOY, "s", "B", "task", twice.fixed, twice.free, same="a")
    asks = [twice, once, other_kind, twice, once, elsewhere, other_same]
    assert distinct(asks) == [twice, once, other_kind, once, elsewhere, other_same]
    assert distinct(iter(asks)) == distinct(asks) and distinct([]) == []


# -- a study of every strategy -----------------------------------------------------------------------------------------

OF_EVERY_STRATEGY = (
    "study.test_on=[A, B]",
    "arms.average.rounds=2", "arms.average.transport=int8", "arms.average.alone=true",
    "arms.ring.rounds=2", "arms.ring.transport=fp16",
    "arms.remote.updates=3", "arms.remote.batches_per_job=2", "arms.remote.transport=int8", "arms.remote.lock_step=true",
    "arms.weights={strategy: dm_gan, model: wgan_gp, width: 4, critic_steps: 2, batch_size: 4, updates: 2, batches_per_job: 1,"
    " lock_step: true, exchange: generator, transport: fp16, fidelity: {images: 40, every: 2, fewest_patients: 2}}",
    "arms.swapped={strategy: md_gan, model: dcgan, conditional: true, width: 4, batch_size: 4, updates: 4, batches_per_job: 1,"
    " swap_every: 2, transport: fp16, ema: null, fidelity: {images: 16, spaces: []}}",
    "arms.central={strategy: pooled_gan, model: dcgan, width: 4, batch_size: 4, rounds: 1, local_steps: 1,"
    " fidelity: {images: 16, fewest_patients: 2}}",
    "arms.pooled={strategy: pooled, centres: [B, C], patches: 5}",
    "arms.classifier={strategy: fedavg_classifier, rounds: 2, local_steps: 1, transport: int8, fine_tune: 2}",
    "arms.plain={strategy: fedavg_classifier, rounds: 1, local_steps: 1, transport: int8, secure_aggregation: false}",
    "centres.D={roles: [provider], data: {source: phantom, patients: 24, scanner: film}}",
    "arms.summed={strategy: fedavg_gan, model: dcgan, width: 4, batch_size: 4, rounds: 1, local_steps: 1,"
    " fidelity: {images: 16, fewest_patients: 2}}",
    "generators.b={centre: B, model: dcgan, width: 4, steps: 4, batch_size: 4, snapshot_every: 2, ema: 0.9}",
    "generators.c={centre: C, model: flow_matching, conditional: true, widths: [32], sampling_steps: 2, steps: 2, batch_size: 4}",
    "arms.given={strategy: one_shot, generators: [b, c], choose: {by: distance, fewest_patients: 2}}",
)  # fmt: skip


@pytest.fixture(scope="module")
def heard(federated, conduct_in_process, tmp_path_factory):
    """A plan, and of its run each (job as JSON, its arrays, its reply as JSON, the reply's arrays)."""
    jobs, exchanges = {}, []

    def listen(message):
        envelope = json.loads(str(message.content.config_records["envelope"]["json"]))
        arrays = {name: array.numpy() for name, array in message.content.array_records["arrays"].items()}
        if message.metadata.reply_to_message_id:
            exchanges.append((*jobs[envelope["unit"]], envelope, arrays))
        else:
            jobs[envelope["unit"]] = envelope, arrays

    scenario = federated(*OF_EVERY_STRATEGY)
    done, record = conduct_in_process(scenario, tmp_path_factory.mktemp("heard") / "run", on_message=listen)
    assert done, [event for event in record.events() if event["event"] == "unit_failed"]
    return Plan(scenario), exchanges


def test_every_strategy_and_every_kind_takes_part(heard):
    _, exchanges = heard
    masking = {kind.name for kinds in (GAN_SUMS, CLASSIFIER_SUMS) for kind in kinds.all}  # on real nodes only
    assert {job["kind"] for job, *_ in exchanges} == set(KINDS) - masking
    assert {job["strategy"] for job, *_ in exchanges} - {""} == set(STRATEGIES)


def is_one_of(ask, job):
    """Whether a job is one that was planned. Of a cell that learns from real patches their number was not known."""
    differing = set(ask.difference(job["strategy"], job["body"]))
    return not differing - ({"pools", "recipe"} if job["strategy"] == "pooled" else set())


def same_layout(predicted, arrays):
    """Whether arrays are those predicted: names, dtypes, shapes; a side that cannot be known is any."""
    assert predicted.keys() == arrays.keys()
    for name, array in arrays.items():
        one = predicted[name]
        assert (one.dtype, len(one.shape)) == (str(array.dtype), array.ndim), name
        assert all(side in (None, own) for side, own in zip(one.shape, array.shape, strict=True)), name
    return True


def test_what_travels_with_every_job_and_answer_is_what_its_ask_predicted(heard):
    """The prediction is the scenario's: made before the survey, from the ask alone."""
    plan, exchanges = heard
    asks = defaultdict(list)
    for ask in plan.asks():
        asks[ask.kind.name, ask.centre].append(ask)
    for job, down, reply, up in exchanges:
        own = [ask for ask in asks[job["kind"], job["centre"]] if is_one_of(ask, job)]
        assert own, (job["kind"], job["label"])
        for ask in own:
            # What depends on an example is predicted for the value that this job has.
            outline = ask.outline.model_copy(update={key: job["body"][key] for key in ask.example})
            assert same_layout(ask.kind.layout_in(outline), down)
            assert same_layout(ask.kind.layout_out(outline), up)
            body = ask.kind.parse(job["body"])
            assert ask.kind.misfit_in(body, down) == ask.kind.misfit_out(body, up) == ""
            assert ask.kind.undeclared(reply["body"], up) == ""


def test_messages_and_bytes_of_every_kind_are_predicted_exactly(heard):
    """Also of discriminators that change places. Pixels of real patches alone are not known before the survey."""
    plan, exchanges = heard
    found, expected = Counter(), Counter()
    for job, down, _, up in exchanges:
        key = job["kind"], job["centre"]
        found[*key, "messages"] += 1
        found[*key, "down"] += sum(array.nbytes for array in down.values())
        found[*key, "up"] += sum(array.nbytes for array in up.values())
    unknown = set()
    for ask in distinct(plan.asks()):
        key = ask.kind.name, ask.centre
        expected[*key, "messages"] += ask.times
        for way, each, extra in (("down", ask.bytes_down, ask.extra_down), ("up", ask.bytes_up, ask.extra_up)):
            if each is None:
                unknown.add((*key, way))
            else:
                expected[*key, way] += ask.times * each + extra
    assert {(kind, way) for kind, _, way in unknown} == {("send_patches", "up"), ("receive_patches", "down")}
    for key in found.keys() - unknown:
        assert found[key] == expected[key], key
    assert expected.keys() <= found.keys()
