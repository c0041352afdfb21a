"""A node that answers with anything: at worst its own answer is refused, and the work of the others goes on."""

import copy
import json
from dataclasses import replace

import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from federation.flower.in_process import InProcessGrid
from federation.wire import errors, job
from federation.wire.errors import EnvelopeError, explain
from federation.wire.grid_centres import GridCentres
from federation.wire.job import IDENTIFY, Job, Reply
from federation.wire.roll_call import RollCall
from reports.run_record import RunRecord
from server import checkpoint
from server.checkpoint import Checkpointed

LIE = {
    "protocol": job.PROTOCOL, "study": "", "unit": "", "centre": "", "kind": "", "code": "x", "numbers": {"code": 1, "job": 2}, "body": {},
    "started": 0, "finished": 0, "worker": "", "array_bytes": 0,
}  # fmt: skip
BOMB = "{label.__class__.__mro__} {label:>9999999999} {0} {"
# One value in the place of another.
ODD = st.sampled_from([
    None, True, 0, -1, 2**63 - 1, 2**63, 10**400, 1e308, -0.0, "", "x" * 100_000, "=1+1", "\ud800", "\x1b[2J\n", BOMB, [], [[]], {},
    {"": {}}, {"code": 1, "job": 2, "centre": 3, "label": BOMB}, "../../etc/passwd", "0" * 64,
]) | st.floats()  # fmt: skip


def record_of(envelope, arrays=None):
    text = envelope if isinstance(envelope, str) else json.dumps(envelope)
    return RecordDict(
        {"envelope": ConfigRecord({"json": text}), "arrays": ArrayRecord({}) if arrays is None else arrays}
    )


def ends_as(record, sent, folder):
    """The reply with which a job of centre B ends whose node answers with a record; centre A's honest one must end well."""
    app, other = ClientApp(), Job("s", "other", "A", sent.kind, sent.body)

    @app.query()
    def handle(message, context):
        return Message(
            record if Job.from_record(message.content).unit == sent.unit else record_of("{}"), reply_to=message
        )

    centres = GridCentres(InProcessGrid(app, 2, {}), {sent.centre: [101], "Z": [102]})
    run = (
        RunRecord.create(folder, "name: x\n", {}) if not (folder / "scenario.yaml").exists() else RunRecord.open(folder)
    )
    kept = Checkpointed(centres, run)
    replies = kept.gather([sent, Job("s", other.unit, "Z", sent.kind, sent.body)])
    assert [reply.unit for reply in replies] == [sent.unit, "other"], "every job ends"
    assert replies[1].code == "malformed"
    for event in run.events():
        text = event.get("text", "")
        assert text.isprintable() and len(text) < 10_000
    return replies[0]


@pytest.fixture(scope="session")
def honest(tiny, conduct_in_process, tmp_path_factory):
    """{kind: (job, envelope, arrays)} of a whole study."""
    jobs, found = {}, {}

    def listen(message):
        envelope = str(message.content.config_records["envelope"]["json"])
        if not message.metadata.reply_to_message_id:
            jobs[message.metadata.message_id] = Job.from_record(message.content)
            return
        sent = jobs[message.metadata.reply_to_message_id]
        found[sent.kind] = sent, json.loads(envelope), message.content.array_records["arrays"]

    done, _ = conduct_in_process(tiny(), tmp_path_factory.mktemp("honest") / "run", on_message=listen)
    assert done and len(found) >= 5
    return found


def places(value, above=()):
    """Paths of all values within one."""
    yield above
    inner = value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
    for key, one in inner:
        yield from places(one, (*above, key))


def changed(envelope, path, value):
    envelope = copy.deepcopy(envelope)
    place = envelope
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return envelope


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_changed_answer_of_any_kind_is_at_worst_a_refused_one(data, honest, tmp_path_factory):
    sent, envelope, arrays = honest[data.draw(st.sampled_from(sorted(honest)))]
    for _ in range(data.draw(st.integers(1, 3))):
        found = [path for path in places(envelope) if path and path[0] not in ("study", "unit", "centre", "kind")]
        path = data.draw(st.sampled_from(found))
        envelope = changed(envelope, path, data.draw(ODD))
        if "body" not in envelope or not isinstance(envelope["body"], dict):
            break
    reply = ends_as(record_of(json.dumps(envelope), arrays), sent, tmp_path_factory.mktemp("run"))
    assert isinstance(reply, Reply) and explain("B", reply.code, BOMB, reply.numbers)
    for value in reply.numbers.values():
        assert type(value) in (int, float, str, bool) and len(str(value)) <= 400


@pytest.mark.parametrize(
    "record",
    [
        RecordDict({}),
        RecordDict({"envelope": ConfigRecord({"json": "{}"})}),
        RecordDict({"envelope": ConfigRecord({"json": 3}), "arrays": ArrayRecord({})}),
        RecordDict({"envelope": ConfigRecord({"json": [1, 2]}), "arrays": ArrayRecord({})}),
        RecordDict({"envelope": ArrayRecord({}), "arrays": ArrayRecord({})}),
        RecordDict({"envelope": ConfigRecord({"json": "{}"}), "arrays": ArrayRecord({}), "more": ConfigRecord({"x": 1})}),
        record_of("[]"), record_of("3"), record_of("null"), record_of("[" * 100_000), record_of(LIE | {"unit": "", "code": BOMB}),
        record_of(LIE), record_of(LIE | {"numbers": {"code": {"a": 1}}}), record_of(LIE | {"started": 1e300}),
        record_of(LIE | {"code": "missing_input", "numbers": {"input": "é" * 200}}),
    ],
)  # fmt: skip
def test_an_answer_that_is_none_ends_its_own_job_only(record, honest, tmp_path):
    reply = ends_as(record, honest["survey_data"][0], tmp_path / "run")
    assert not reply.ok


def test_without_the_defence_one_answer_ends_the_run(honest, tmp_path, monkeypatch):
    """Names in `numbers` that are names of arguments, as they once were."""

    def as_before(job, code, **numbers):
        return Reply(job.study, job.unit, job.centre, job.kind, code=code, numbers=numbers)

    monkeypatch.setattr(Reply, "error", staticmethod(as_before))
    with pytest.raises(TypeError, match="multiple values"):
        ends_as(record_of(LIE), honest["survey_data"][0], tmp_path / "run")


def test_without_the_declared_types_a_survey_would_reach_the_study(honest, monkeypatch):
    sent, envelope, _ = honest["survey_data"]
    (found,) = envelope["body"]["tasks"].values()
    wrong = changed(envelope, ("body", "tasks"), {"other": found})
    reply = Reply.from_record(record_of(wrong), sent)
    assert checkpoint.checked(sent, reply).code == "bad_answer"
    kind = checkpoint.KINDS[sent.kind]
    monkeypatch.setitem(checkpoint.KINDS._now(), sent.kind, replace(kind, answer_model=None))
    assert checkpoint.checked(sent, reply).ok, "its missing task would be looked up, which ends the run"


def test_a_template_is_never_made_of_what_a_centre_says():
    said = explain("B", BOMB, "the job", {"have": BOMB, "x": BOMB})
    assert "<class" not in said and len(said) < 1000
    # As it once was: the foreign code was the template.
    assert "<class" in "could not do {label.__class__}".format_map(errors._Known(label="the job"))


def test_a_centre_forgets_no_unit_of_another(honest, tmp_path):
    sent = honest["survey_data"][0]
    run = RunRecord.create(tmp_path / "run", "name: x\n", {})
    run.write_unit("abc123", {"result": 1})
    envelope = honest["survey_data"][1] | {"code": "missing_input", "numbers": {"input": "abc123"}}
    assert ends_as(record_of(envelope), sent, tmp_path / "run").code == "missing_input"
    assert run.read_unit("abc123") is not None


@settings(max_examples=60, deadline=None)
@given(
    body=st.dictionaries(st.sampled_from(["centre", "code", "clock", "versions"]), ODD),
    numbers=st.dictionaries(st.text(), ODD),
)
def test_no_introduction_ends_the_roll_call(body, numbers):
    notes = []
    roll = RollCall(None, ["B"], code="c", on_note=notes.append)
    sent = Job("s", "u", "B", IDENTIFY, {})
    for code in ("ok", "policy", BOMB):
        envelope = LIE | {
            "study": "s",
            "unit": "u",
            "centre": "B",
            "kind": IDENTIFY,
            "code": code,
            "body": body,
            "numbers": numbers,
        }
        message = type("M", (), {"content": record_of(envelope), "has_error": lambda self: False})()
        centre, problem = roll._read(1, sent, message, 0.0)
        assert centre is None or centre == "B"
        assert all(text.isprintable() and len(text) < 2000 for text in [problem, *notes])


def test_what_a_node_sends_of_itself_is_bounded_too():
    reply = Reply.error(
        Job("s", "u", "B", "k", {}), "policy", rule="x\n" * 10_000, job=1, **{f"n{i}": i for i in range(99)}
    )
    assert len(reply.numbers) == 16 and reply.numbers["job"] == 1
    assert len(reply.numbers["rule"]) < 400 and "\n" not in reply.numbers["rule"]
    assert len(EnvelopeError("policy", "", rule="y" * 9999).numbers["rule"]) < 400
