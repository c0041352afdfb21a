"""What a node with a centre.yaml refuses, whoever asks: each rule by its code, and that a job within the rules is done."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

import strategies
from clients import app, policy
from clients.approval import Approvals
from clients.centre_file import CentreFile
from clients.ledger import Ledger
from clients.node import Node, Refusal
from federation.wire.code_digest import code_digest
from federation.wire.errors import TEXTS, explain
from federation.wire.job import MESSAGE_TYPE, PROTOCOL, Job, Reply, canonical_json
from federation.wire.units import scenario_digest
from scenarios.plan import Plan
from scenarios.reader import resolved_yaml


@pytest.fixture(scope="module")
def scenario(federated):
    """Three kinds of federations, a generator that B trains for A, a federated classifier, tests at B."""
    return federated(
        "generators={b_gan: {centre: B, model: dcgan, width: 4, steps: 2, batch_size: 4}}",
        "arms.one={strategy: one_shot, generators: [b_gan]}",
        "arms.classifier={strategy: fedavg_classifier, rounds: 2, local_steps: 2}",
        "arms.plain={strategy: fedavg_classifier, rounds: 2, local_steps: 2, secure_aggregation: false}",
        "centres.D={roles: [provider], data: {source: phantom, patients: 24, scanner: film}}",
        "arms.summed={strategy: fedavg_gan, model: dcgan, width: 4, batch_size: 4, rounds: 4, local_steps: 2}",
        "arms.average.centres=[B, C]", "arms.remote.centres=[B, C]", "arms.ring.centres=[B, C]",
        "arms.remote.clip=1.0", "study.test_on=[B]",
    )  # fmt: skip


@pytest.fixture(scope="module")
def plan(scenario):
    return Plan(scenario, deployed=True)


@pytest.fixture
def node(centre_file, tmp_path, scenario):
    """Function: a node that has approved the scenario; settings as in centre.yaml."""

    def make(centre="B", approved=True, **settings):
        file = CentreFile.read(centre_file(tmp_path / centre, centre, **settings))
        if approved:
            Approvals(file.workspace).add(resolved_yaml(scenario))
        made = Node(centre, file.workspace, file.cache_folder, deployed=True, file=file)
        made.workspace.mkdir(parents=True, exist_ok=True)
        return made

    return make


def config_of(node):
    return {"centre_file": str(node.workspace.parent / "centre.yaml")}


PUBLIC = {"encryption": "ab" * 32, "masking": "cd" * 32, "signature": "ab"}
STEP = {"round": 0, "session": "ab12"}
STEPS = {
    "keys": STEP, "shares": STEP | {"keys": {"B": PUBLIC}}, "survivors": STEP | {"survivors": ["B"], "next_session": ""},
    "opening": STEP | {"signatures": {"B": "ab"}, "next_session": "", "next_keys": {}},
}  # fmt: skip
SUMMED = {"session": "ab12", "shares": {"C": "ab"}}
COURSE = {"federation": "ab12", "fresh": 0, "introduce": True, "state_unit": ""}
# Of each kind: the strategy and the centre of an honest job, and what the server finds out on the way.
HONEST = {
    "survey_data": ("", "B", {}),
    "train_generator": ("one_shot", "B", {}),
    "train_round": ("fedavg_gan", "B", COURSE | {"attempt": 0, "round": 3, "from_step": 6}),
    "feature_sums": ("fedavg_gan", "B", {}),
    "feature_secure_sums": ("fedavg_gan", "B", SUMMED | {"attempt": 1}),
    "measure_generator": ("fedavg_gan", "A", {}),
    "train_discriminator": (
        "dm_gan", "B", COURSE | {"version": 4, "from_step": 5, "batches": 2, "labels": (1,), "send_discriminator": False,
                    "discriminator_of": "", "signature": ""},
    ),
    "synthesise": ("", "A", {}),
    "learn_classifier": ("one_shot", "A", {}),
    "test_classifier": ("one_shot", "B", {"signature": ""}),
    "train_classifier_round": ("fedavg_classifier", "B", COURSE | {"attempt": 0, "round": 1, "from_step": 2}),
    "train_classifier_summed_round": (
        "fedavg_classifier", "B", COURSE | SUMMED | {"attempt": 0, "round": 1, "from_step": 2},
    ),
    "train_summed_round": ("fedavg_gan", "B", COURSE | SUMMED | {"attempt": 0, "round": 3, "from_step": 6}),
    **{f"sum_{name}": ("fedavg_gan", "B", found) for name, found in STEPS.items()},
    **{f"sum_classifier_{name}": ("fedavg_classifier", "B", found) for name, found in STEPS.items()},
    "validate_classifier": ("fedavg_classifier", "A", {"federation": "ab12", "round": 1}),
    "adopt_classifier": ("fedavg_classifier", "A", {"federation": "ab12", "history": {}, "best": {}}),
}  # fmt: skip


@pytest.fixture(scope="module")
def jobs(scenario, plan):
    """Function: an honest job of a kind, as the server would send it to its centre."""
    known = {}
    (delivery,) = (d for d in plan.deliveries.values() if d.arm == "one")
    for ask in plan.asks():
        strategy, centre, found = HONEST[ask.kind.name]
        if ask.kind.name in known or (ask.strategy, ask.centre) != (strategy, centre):
            continue
        if ask.kind.name == "learn_classifier":
            found = found | {"pools": [pool.model_copy(update={"unit": "ab12"}) for pool in delivery.pools()]}
        known[ask.kind.name] = Job(
            "study", "unit", centre, ask.kind.name, ask.filled(**found), code=code_digest(),
            scenario=scenario_digest(resolved_yaml(scenario)), strategy=strategy,
        )  # fmt: skip
    return known.__getitem__


PIXELS = sorted(name for name, kind in strategies.KINDS.items() if kind.pixels)
KINDS = sorted(set(strategies.KINDS) - set(PIXELS))
ALLOWED = [name for name, strategy in strategies.STRATEGIES.items() if not strategy.pixels]


def refused(node, job, **options):
    with pytest.raises(Refusal) as refusal:
        policy.accept(node, job, **options)
    text = explain("B", refusal.value.code, "the job", refusal.value.numbers)
    assert refusal.value.code in TEXTS and "?" not in text, text
    return refusal.value.code, refusal.value.numbers


@pytest.mark.parametrize("kind", KINDS)
def test_an_honest_job_of_an_approved_study_is_done(kind, node, jobs):
    policy.accept(node(jobs(kind).centre), jobs(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_a_job_of_a_study_that_is_not_approved_is_refused_with_its_hash(kind, node, jobs):
    job = jobs(kind)
    assert refused(node(job.centre, approved=False), job) == ("study_not_approved", {"scenario": job.scenario})
    for scenario in ("", "../../etc/passwd", "0" * 64):
        assert refused(node(job.centre), replace(job, scenario=scenario))[0] == "study_not_approved"


def test_a_revoked_study_and_an_altered_approval_are_refused(node, jobs, scenario):
    job, made = jobs("survey_data"), node()
    file = made.workspace / "approved" / f"{job.scenario}.yaml"
    file.write_text(file.read_text().replace("patients: 24", "patients: 48"))
    assert refused(made, job) == ("approval_altered", {"scenario": job.scenario})
    approvals = Approvals(made.workspace)
    assert approvals.remove(job.scenario) and not approvals.remove(job.scenario)
    assert refused(made, job)[0] == "study_not_approved"


def tampered():
    """(kind, key that is named, change of the body)."""
    for kind in KINDS:
        if kind not in ("synthesise", "measure_generator"):
            yield kind, "data", {"data": {"source": "folder", "path": "/home/other"}}
            yield kind, "data_seed", {"data_seed": 5}
        yield kind, "extra", {"extra": 1}
        yield kind, "compute", {"compute": {"device": "cpu"}}
        if not kind.startswith("feature_") and not kind.startswith("sum_"):
            yield kind, "compute.threads", {"compute": {"device": "cpu", "threads": 64, "precision": "fp32"}}
    yield "survey_data", "tasks", {"tasks": []}
    yield "survey_data", "models", {"models": {"x": {}}}
    for kind in ("train_generator", "train_round", "train_discriminator", "synthesise", "measure_generator"):
        yield kind, "generator", {"generator": {"model": "memorising"}}
        yield kind, "seed", {"seed": 1}
    for kind in ("feature_sums", "feature_secure_sums"):
        yield kind, "spaces", {"spaces": ["pixels"]}
    yield "feature_secure_sums", "masked", {"masked": False}
    yield "feature_secure_sums", "round", {"round": 1}
    yield "measure_generator", "images", {"images": 10**6}
    for kind in ("train_round", "train_classifier_round", "train_summed_round", "train_classifier_summed_round"):
        yield kind, "round", {"round": 400, "from_step": 800}
        yield kind, "round", {"round": -1, "from_step": -2}
        yield kind, "from_step", {"from_step": 1000}
        yield kind, "steps", {"steps": 10**6}
        yield kind, "transport", {"transport": "int8"}
    for kind in ("train_summed_round", "train_classifier_summed_round"):
        yield kind, "masked", {"masked": False}
        yield kind, "sum_of", {"sum_of": "another"}
        yield kind, "shares", {"shares": {"X": "ab"}}
    for kind in ("sum_keys", "sum_classifier_shares", "sum_survivors", "sum_classifier_opening"):
        yield kind, "sum_members", {"sum_members": ["B", "X", "Y"]}
        yield kind, "sum_of", {"sum_of": "another"}
        yield kind, "round", {"round": 400}
    yield "sum_shares", "keys", {"keys": {"X": PUBLIC}}
    yield "sum_survivors", "survivors", {"survivors": ["X"]}
    yield "sum_opening", "signatures", {"signatures": {"X": "ab"}}
    yield "sum_opening", "next_keys", {"next_keys": {"X": PUBLIC}}
    yield "train_round", "pools", {"pools": ["../../secret"]}
    yield "train_round", "rules", {"rules": {}}
    yield "train_discriminator", "gradients", {"gradients": {"clip": None, "noise": 0.0}}
    yield "train_discriminator", "exchange", {"exchange": "generator"}
    yield "train_discriminator", "send_discriminator", {"send_discriminator": True}
    yield "train_discriminator", "batches", {"batches": 10**6}
    yield "train_discriminator", "version", {"version": 11}
    yield "train_discriminator", "from_step", {"from_step": -1}
    yield "synthesise", "counts", {"counts": {"1": 10**9}}
    yield "learn_classifier", "size", {"size": {"fraction": None, "images": 1}}
    yield "learn_classifier", "pools", {"pools": []}
    yield "learn_classifier", "pools", {"pools": 3}
    yield "learn_classifier", "choose", {"choose": {"by": "distance"}}
    yield "adopt_classifier", "fine_tune", {"fine_tune": 10**6}
    yield "adopt_classifier", "send_classifier", {"send_classifier": False}
    for kind in ("learn_classifier", "test_classifier", "adopt_classifier"):
        yield kind, "training", {"training": {}}


@pytest.mark.parametrize(("kind", "key", "change"), list(tampered()))
def test_a_job_that_is_not_as_approved_is_refused_and_the_key_named(kind, key, change, node, jobs):
    job = jobs(kind)
    found = refused(node(job.centre), replace(job, body=job.body | change))
    assert found == ("not_in_study", {"key": key})


@pytest.mark.parametrize("kind", KINDS)
def test_no_key_may_be_left_out(kind, node, jobs):
    job = jobs(kind)
    made = node(job.centre)
    for key in job.body:
        assert refused(made, replace(job, body={k: v for k, v in job.body.items() if k != key}))[0] == "not_in_study"


def test_a_centre_is_not_asked_for_what_another_centre_does(node, jobs):
    job = replace(jobs("train_generator"), centre="C")
    assert refused(node("C"), job)[0] == "not_in_study"
    assert refused(node("C"), replace(jobs("learn_classifier"), centre="C"))[0] == "not_in_study"


def test_any_study_is_done_where_the_centre_says_so(node, jobs):
    made = node(approved=False, **{"approve": {"studies": "any"}})
    policy.accept(
        made, replace(jobs("train_generator"), scenario="0" * 64, body=jobs("train_generator").body | {"seed": 1})
    )


# -- what is forbidden whatever was approved -------------------------------------------------------------------------


def trial(node, **settings):
    return node(approved=False, **{"approve": {"studies": "any"}}, **settings)


@pytest.mark.parametrize("kind", PIXELS)
@pytest.mark.parametrize("strategy", ["pooled", "pooled_gan", "local"])
def test_real_patches_stay(kind, strategy, node, jobs):
    job = replace(jobs("survey_data"), kind=kind, strategy=strategy)
    assert refused(trial(node), job) == ("policy", {"rule": "real patches stay where they are"})
    assert refused(node(), job)[0] == "policy"


@pytest.mark.parametrize("strategy", ["pooled", "pooled_gan", "", "gossip"])
def test_a_strategy_that_no_deployed_centre_takes_part_in(strategy, node, jobs):
    assert (
        refused(trial(node), replace(jobs("learn_classifier"), centre="B", strategy=strategy))[0] == "not_in_strategy"
    )


def test_a_job_under_the_name_of_another_strategy(node, jobs):
    job = replace(jobs("train_generator"), strategy="local")
    assert refused(trial(node), job) == ("not_in_strategy", {"kind": "train_generator", "strategy": "local"})
    assert refused(node(), job) == ("not_in_study", {"key": "strategy"})


@pytest.mark.parametrize("strategy", ALLOWED)
def test_a_strategy_that_the_centre_leaves_out(strategy, node, jobs):
    allowed = [name for name in ALLOWED if name != strategy]
    made = trial(node, release={"strategies": allowed})
    kind = next((kind.name for kind in strategies.STRATEGIES[strategy].kinds), "learn_classifier")
    job = replace(jobs("survey_data"), kind=kind, strategy=strategy)
    assert refused(made, job) == ("strategy_refused", {"strategy": strategy})
    policy.accept(made, jobs("survey_data"))


@pytest.mark.parametrize("rule", [{"epsilon_at_most": 8}, {"attacks_must_fail": ["membership"]}])
def test_a_model_does_not_leave_where_a_rule_cannot_be_checked(rule, node, jobs):
    made = trial(node, release=rule)
    for kind in ("train_generator", "train_round", "train_discriminator", "train_classifier_round"):
        code, numbers = refused(made, replace(jobs(kind), centre="B"))
        assert code == "policy" and f"release.{next(iter(rule))}" in numbers["rule"]
    for kind in ("learn_classifier", "adopt_classifier"):
        job = replace(jobs(kind), centre="B")
        assert refused(made, job)[0] == "policy"
        policy.accept(made, replace(job, body=job.body | {"send_classifier": False}))
    for kind in ("survey_data", "feature_sums", "test_classifier"):
        policy.accept(made, jobs(kind))


@pytest.mark.parametrize("rule", [{"epsilon_at_most": 8}, {"attacks_must_fail": ["membership"]}])
def test_a_sum_is_a_model_too_and_such_a_rule_keeps_it_back(rule, node, jobs):
    for kind in ("train_summed_round", "train_classifier_summed_round"):
        assert refused(trial(node, release=rule), jobs(kind))[0] == "policy"


def test_what_a_centre_alone_has_learned_does_not_leave_in_every_round_unless_it_says_so(node, jobs):
    rule = {"plain_updates": False}
    for kind in ("train_round", "train_discriminator", "train_classifier_round"):
        code, numbers = refused(trial(node, release=rule), jobs(kind))
        assert code == "policy" and numbers["rule"].startswith("release.plain_updates is false")
        policy.accept(trial(node, release={"plain_updates": True}), jobs(kind))
    for kind in (
        "train_summed_round",
        "train_classifier_summed_round",
        "train_generator",
        "sum_opening",
    ):
        policy.accept(trial(node, release=rule), jobs(kind))
    bare = jobs("train_summed_round")
    bare = replace(bare, body=bare.body | {"masked": False})
    assert refused(trial(node, release=rule), bare)[0] == "policy", "the ring without masks is as plain"


def test_working_hours_and_a_pause(node, jobs):
    made = trial(node, working_hours={"from": "19:00", "until": "07:00", "zone": "UTC"})
    noon, night = datetime(2026, 3, 2, 12, tzinfo=UTC), datetime(2026, 3, 2, 23, tzinfo=UTC)
    code, numbers = refused(made, jobs("survey_data"), now=noon)
    assert code == "outside_hours" and "19:00 to 07:00 UTC" in numbers["hours"]
    policy.accept(made, jobs("survey_data"), now=night)
    (made.workspace / policy.PAUSED).touch()
    assert refused(made, jobs("survey_data"), now=night) == ("paused", {})


def test_a_job_for_another_centre(node, jobs):
    assert refused(node("C"), jobs("survey_data")) == ("not_addressed", {})


# -- terms -----------------------------------------------------------------------------------------------------------


def test_a_job_is_done_with_the_centres_own_data_device_and_threads(node, jobs):
    data = {"source": "phantom", "patients": 7, "scanner": "film"}
    made = node(data=data, device="cpu", resources={"threads": 2})
    job = jobs("train_generator")
    job = replace(job, body=job.body | {"compute": {"device": "cuda:0", "threads": 64, "precision": "fp32"}})
    done = policy.on_own_terms(made, job)
    assert done.body["data"] == data
    assert done.body["compute"] == {"device": "cpu", "threads": 2, "precision": "fp32"}
    assert {k: v for k, v in done.body.items() if k not in ("data", "compute")} == {
        k: v for k, v in job.body.items() if k not in ("data", "compute")
    }
    without = node(data=None, approve={"studies": "any"})
    assert policy.on_own_terms(without, jobs("train_generator")).body == jobs("train_generator").body


# -- the whole way, from message to reply --------------------------------------------------------------------------


def handled(record, node):
    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1  # as Flower does in processes that it starts
    message = Message(record, 1, MESSAGE_TYPE)
    message.metadata.__dict__.update(_message_id="1", _run_id=1)
    context = Context(run_id=1, node_id=1, node_config=config_of(node), state=RecordDict(), run_config={})
    return app.handle(message, context)


def envelope_of(reply):
    return json.loads(reply.content.config_records["envelope"]["json"])


def test_a_refusal_is_a_reply_with_its_code_and_stands_in_the_record(node, jobs):
    made = node(approved=False)
    job = jobs("survey_data")
    reply = Reply.from_record(handled(job.to_record(), made).content, job)
    assert (reply.code, reply.numbers) == ("study_not_approved", {"scenario": job.scenario})
    (entry,) = Ledger(made.workspace).verify().entries
    assert (entry["kind"], entry["code"], entry["scenario"]) == ("survey_data", "study_not_approved", job.scenario)


def test_changed_client_code_on_the_servers_side_is_named(node, jobs):
    made = node()
    reply = app.answer(replace(jobs("survey_data"), code="0" * 16), config_of(made))
    assert (reply.code, reply.numbers) == ("code_mismatch", {"ours": "0" * 16, "theirs": code_digest()})


def test_what_cannot_be_recorded_does_not_leave(node, jobs):
    made = node()
    app.answer(replace(jobs("survey_data"), code="0" * 16), config_of(made))
    ledger = Ledger(made.workspace)
    ledger.path.write_bytes(ledger.path.read_bytes().replace(b'"n":1', b'"n":2'))
    reply = app.answer(Job("roll-call", "node-1", "unknown", "identify", {}), config_of(made))
    assert reply.code == "ledger_broken" and reply.body == {}


def test_a_centre_file_with_a_fault_is_a_refusal_without_its_text(node, jobs, caplog):
    made = node()
    (made.workspace.parent / "centre.yaml").write_text("centre: B\nporto: 3\n")
    reply = app.answer(jobs("survey_data"), config_of(made))
    assert (reply.code, reply.numbers, reply.body) == ("bad_centre_file", {}, {})


def message_with(envelope=None, arrays=None, **changes):
    job = Job("s", "u", "B", "survey_data", {"compute": {"threads": 1}})
    record = job.to_record()
    known = json.loads(record.config_records["envelope"]["json"]) | changes
    return RecordDict({
        "envelope": ConfigRecord({"json": canonical_json(known) if envelope is None else envelope}),
        "arrays": ArrayRecord(arrays or {}),
    })  # fmt: skip


def lying(array, shape=None, dtype=None, data=None):
    """An array whose own header says something else than its bytes."""
    made = Array(array)
    made.data = made.data if data is None else data(made.data)
    made.shape, made.dtype = shape or made.shape, dtype or made.dtype
    return made


ZEROS = np.zeros(4, np.float32)


@pytest.mark.parametrize(
    ("record", "code"),
    [
        (message_with("{"), "malformed"),
        (message_with("[" * 100_000), "too_large"),
        (message_with(f'{{"protocol": {PROTOCOL}}}'), "malformed"),
        (message_with(plugins={}), "malformed"),
        (message_with(protocol=PROTOCOL + 1), "protocol_mismatch"),
        (message_with(body=[]), "malformed"),
        (message_with(place="x"), "malformed"),
        (message_with(unit="../../etc"), "bad_name"),
        (message_with(centre="a/b"), "bad_name"),
        (message_with(array_bytes=2**50), "too_large"),
        (message_with(array_bytes=2**21), "message_too_large"),
        (message_with(body={"x": "y" * 2**21}), "message_too_large"),
        (message_with(arrays={"a": Array(np.zeros(2**19, np.float32))}, array_bytes=2**21), "message_too_large"),
        (message_with(arrays={"a": Array(np.zeros(2**19, np.float32))}, array_bytes=16), "message_too_large"),
        (message_with(arrays={"a": Array(ZEROS)}, array_bytes=8), "size_mismatch"),
        (message_with(arrays={"../a": Array(ZEROS)}, array_bytes=16), "bad_array_name"),
        (message_with(arrays={"a": Array(ZEROS * np.nan)}, array_bytes=16), "not_finite"),
        (message_with(arrays={"a": Array(np.zeros(2, np.complex64))}, array_bytes=16), "bad_dtype"),
        (message_with(arrays={"a": lying(ZEROS, data=lambda d: d.replace(b"(4,)", b"(9,)"))}, array_bytes=36), "size_mismatch"),
        (message_with(arrays={"a": lying(ZEROS, data=lambda d: d.replace(b"<f4", b"<c8"))}, array_bytes=16), "bad_dtype"),
        (message_with(arrays={"a": lying(ZEROS, data=lambda d: b"PK" + d)}, array_bytes=16), "malformed"),
        (message_with(arrays={"a": lying(ZEROS, data=lambda d: d[:9])}, array_bytes=16), "malformed"),
        (message_with(arrays={"a": lying(ZEROS, dtype="object")}, array_bytes=16), "bad_dtype"),
    ],
)  # fmt: skip
def test_a_malicious_message_is_refused_by_its_code_before_it_is_believed(record, code, node):
    made = node(release={"largest_message_mib": 1})
    envelope = envelope_of(handled(record, made))
    assert (envelope["code"], envelope["unit"], envelope["body"]) == (code, "", {})
    (entry,) = Ledger(made.workspace).verify().entries
    assert (entry["kind"], entry["code"]) == ("unreadable", code)


def test_an_array_is_not_allocated_before_its_header_is_checked(monkeypatch, node):
    """A header of 400 bytes may ask numpy for a terabyte."""
    loaded = []
    monkeypatch.setattr(Array, "numpy", lambda self: loaded.append(self) or ZEROS)
    huge = lying(ZEROS, data=lambda d: d.replace(b"(4,), }             ", b"(999999999999,), }  "))
    assert b"999999999999" in huge.data
    envelope = envelope_of(handled(message_with(arrays={"a": huge}, array_bytes=16), node()))
    assert envelope["code"] == "size_mismatch" and not loaded


@pytest.mark.parametrize("place", ["federation", "pool"])
def test_a_path_in_the_place_of_a_name_within_a_body_is_refused(place, node, jobs, tmp_path):
    """Where any study is done, nothing else stands between a body and the disk."""
    made = trial(node)
    course = {"federation": "../../../x"} if place == "federation" else {"pools": ["../../../x"]}
    job = jobs("train_round")
    small = {"source": "phantom", "patients": 8, "scanner": "film"}
    body = job.body | course | {"data": small}
    kind = strategies.KINDS["train_round"]
    arrays = {name: np.zeros(one.shape, one.dtype) for name, one in kind.layout_in(kind.parse(body)).items()}
    reply = app.answer(replace(job, body=body, arrays=arrays), config_of(made))
    assert reply.code == "bad_name"
    assert not (tmp_path / "x").exists()


def test_predictions_stay_unless_the_policy_lets_them_go(node, jobs):
    table = {"patient": [0, 1, 10], "label": [1, 0, 1], "probability": [0.25, 0.123456789, 1e-7]}
    job = jobs("test_classifier")
    answer = Reply(job.study, job.unit, job.centre, job.kind, body={"metrics": {"auroc": 0.5}, "predictions": table})
    made = node()
    assert policy.release(made, job, answer).body == {"metrics": {"auroc": 0.5}}
    assert (made.workspace / "predictions" / "unit.csv").read_text().splitlines() == [
        "case,patient,label,probability", "0,0,1,0.25", "1,1,0,0.123456789", "2,10,1,1e-07",
    ]  # fmt: skip
    assert policy.release(node(release={"predictions": True}), job, answer) == answer


def test_a_reply_that_is_too_large_stays(node, jobs):
    job = jobs("train_generator")
    reply = Reply(job.study, job.unit, job.centre, job.kind, arrays={"weights.a": np.zeros(2**19, np.float32)})
    made = node(release={"largest_message_mib": 1})
    with pytest.raises(Refusal) as refusal:
        policy.release(made, job, reply)
    assert (refusal.value.code, refusal.value.numbers) == ("message_too_large", {"mib": 2.0, "limit": 1.0})
