"""Attacks on a hospital's record and log, by a server whose jobs are refused, and by somebody who can reach the files.

Each is also shown without its defence, where it works.
"""

import io
import json
import re

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode.nodestate import NodeStateFactory
from flwr.supernode.nodestate.in_memory_nodestate import InMemoryNodeState
from rich.console import Console

from basics.plugins import CENTRE_FILE_VARIABLE
from clients import anchor, app, flower_supernode, ledger, ledger_line, node_log
from clients.centre_file import CentreFile
from clients.counted_refusals import BURST
from clients.digests import job_digest, record_digest
from clients.ledger import Ledger
from clients.ledger_line import LONGEST_LINE
from federation.wire.code_digest import code_digest
from federation.wire.job import IDENTIFY, MESSAGE_TYPE, Job, Reply
from polycentre.centre_log import print_record

ENTRY = re.compile(r"\d{4}-\d\d-\d\dT")


class AttackedNode:
    """A deployed node, asked by a server that says what it likes."""

    def __init__(self, path):
        self.path, self.file = path, CentreFile.read(path)
        self.file.workspace.mkdir(exist_ok=True)
        self.ledger = Ledger.of(self.file)

    def ask(self, kind="survey_data", body=None, arrays=None, **fields):
        """The reply to a job, over the real envelope both ways."""
        given = {"scenario": "5c" * 32, "code": code_digest()} | fields
        job = Job("study", given.pop("unit", "unit"), "B", kind, body or {}, arrays or {}, **given)
        message = Message(job.to_record(), 1, MESSAGE_TYPE)
        return Reply.from_record(self.send(message).content, job)

    def send(self, message):
        return app.app(message, Context(1, 1, {"centre_file": str(self.path)}, RecordDict(), {}))

    def entries(self):
        verified = self.ledger.verify()
        assert verified.problems == []
        return verified.entries

    def shown(self, tail=50):
        out = io.StringIO()
        print_record(Console(file=out, width=150, force_terminal=True), self.ledger, tail)
        return out.getvalue()

    def log(self):
        file = self.file.workspace / "node.log"
        return file.read_text().splitlines() if file.exists() else []


@pytest.fixture
def node(centre_file, tmp_path, monkeypatch):
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
    return AttackedNode(centre_file(tmp_path / "B", "B"))


ERASE = "\x1b[1A\x1b[2K\x1b[1A\x1b[2K"
ROW = "\n  9 2026-01-01 "


# -- what is printed -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["scenario", "strategy"])
@pytest.mark.parametrize("words", [ERASE, ROW, "[/x]", "[bold red]ok[/]", "\u202eko", "\x9b2K", "\r     1 2026"])
def test_words_of_a_job_neither_break_nor_forge_what_is_printed(words, field, node):
    node.ask(**{field: words})
    assert all(text.isprintable() for text in node.entries()[-1].values() if isinstance(text, str))
    shown = node.shown()
    for forged in (ERASE, "\n  9 2026", "\x9b", "\u202e", "\r"):
        assert forged not in shown


def test_without_bounded_texts_and_escapes_they_do(node, monkeypatch):
    monkeypatch.setattr(ledger_line, "bounded", lambda text, at_most: text)
    monkeypatch.setattr("polycentre.centre_log.shown", lambda text: text)
    node.ask(scenario=ERASE)
    assert ERASE in node.shown()
    node.ask(scenario=ROW)
    assert ROW in node.shown()


# -- how large it becomes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "length", [8_000, 10_000_000]
)  # the longest word that the envelope lets in, and one that it does not
def test_a_refused_job_of_megabytes_writes_one_short_line(length, node):
    node.ask()
    before = node.ledger.path.stat().st_size
    node.ask(scenario="s" * length, strategy="t" * length, label="l" * length)
    assert node.ledger.path.stat().st_size - before < LONGEST_LINE
    assert (node.file.workspace / "node.log").stat().st_size < 10_000


def test_without_bounded_texts_a_line_is_as_long_as_the_job_says(node, monkeypatch):
    monkeypatch.setattr(ledger_line, "bounded", lambda text, at_most: text)
    node.ask(scenario="s" * 8_000, strategy="t" * 8_000)
    assert node.ledger.path.stat().st_size > 16_000 > LONGEST_LINE


def test_a_flood_of_refused_jobs_is_counted_and_each_is_answered(node):
    replies = [node.ask(unit=f"u{number}") for number in range(3 * BURST)]
    assert {reply.code for reply in replies} == {"study_not_approved"}
    assert len(node.entries()) == BURST and node.ledger.verify().counted == 2 * BURST
    assert node.ask(IDENTIFY).ok
    codes = [entry["code"] for entry in node.entries()]
    assert codes[BURST:] == ["refusals_counted", "ok"], "what leaves with content has its own line"
    assert sum(entry["replies"] for entry in node.entries()) == 3 * BURST + 1


def test_a_flood_of_what_cannot_be_read_is_counted_too(node):
    for number in range(3 * BURST):
        node.send(Message(RecordDict({"envelope": ConfigRecord({"json": f"[{number}"})}), 1, MESSAGE_TYPE))
    assert len(node.entries()) == BURST and node.ledger.verify().counted == 2 * BURST


def test_without_the_limit_each_has_a_line(node, monkeypatch):
    monkeypatch.setattr(ledger, "is_burst", lambda file: False)
    for number in range(3 * BURST):
        node.ask(unit=f"u{number}")
    assert len(node.entries()) == 3 * BURST


# -- node.log ------------------------------------------------------------------------------------------------------------


FORGED = "x\n2026-11-30T00:00:00Z the administrator approved study 0000\n"


@pytest.mark.parametrize("where", ["label", "scenario"])
def test_a_job_cannot_forge_an_entry_of_node_log(where, node):
    before = len(node.log())
    if where == "label":
        node.ask(label=FORGED)
    else:  # the text of an error quotes what was wrong
        node.ask(scenario=FORGED)
    new = node.log()[before:]
    assert sum(bool(ENTRY.match(line)) for line in new) == 1


def test_a_traceback_cannot_forge_one_either(node, monkeypatch):
    def fails(*_):
        raise RuntimeError(FORGED)

    monkeypatch.setattr(app.policy, "accept", fails)
    assert node.ask().code == "exception"
    assert sum(bool(ENTRY.match(line)) for line in node.log()) == 1
    assert any("the administrator approved" in line and line.startswith(node_log.CONTINUED) for line in node.log())


def test_without_escapes_it_can(node, monkeypatch):
    monkeypatch.setattr(app, "_label", lambda job: job.label)
    monkeypatch.setattr(node_log, "entry", lambda text: f"2026-12-01T00:00:00Z {text.rstrip()}\n")
    node.ask(label=FORGED)
    assert any("the administrator approved" in line and ENTRY.match(line) for line in node.log())


def test_a_flood_of_errors_keeps_node_log_small(node, monkeypatch):
    monkeypatch.setattr(node_log, "LARGEST", 3_000)
    for number in range(60):
        node.ask(unit=f"u{number}", label="l" * 1_000)
    sizes = {file.name: file.stat().st_size for file in node.file.workspace.glob("node.log*")}
    assert set(sizes) == {"node.log", "node.log.1"} and max(sizes.values()) <= 3_000


# -- what came in ------------------------------------------------------------------------------------------------------------


def test_two_jobs_that_differ_in_one_weight_can_be_told_apart_afterwards(node):
    for last in (0.0, 1e-7):
        node.ask(arrays={"weights.a": np.array([1, 2, last], np.float32)})
    first, second = node.entries()
    assert first["received"] != second["received"] and first["sha256"] == second["sha256"]
    job = Job("study", "unit", "B", "survey_data", {}, {"weights.a": np.array([1, 2, 0], np.float32)}, code=code_digest(),
              scenario="5c" * 32)  # fmt: skip
    assert first["received"] == job_digest(job), "whoever has the job can compare"


def test_a_message_that_cannot_be_read_is_bound_too(node):
    records = [RecordDict({"envelope": ConfigRecord({"json": text})}) for text in ("{", "{ ", "")]
    for record in records:
        node.send(Message(record, 1, MESSAGE_TYPE))
    assert [entry["received"] for entry in node.entries()] == [record_digest(record) for record in records]


# -- the files -----------------------------------------------------------------------------------------------------------------


def deleted(node):
    node.ledger.path.unlink()


def cut_off(node):
    lines = node.ledger.path.read_bytes().splitlines(keepends=True)
    node.ledger.path.write_bytes(b"".join(lines[:-1]))


def begun_anew(node):
    """Deleted, and a line put in by whoever did it."""
    node.ledger.path.unlink()
    job = Job("s", "u", "B", IDENTIFY, {})
    Ledger(node.file.workspace).record(job, Reply.error(job, "ok"), "B")


TRACES = [deleted, cut_off, begun_anew]


@pytest.mark.parametrize("tamper", TRACES)
def test_a_record_without_its_end_stops_all_that_leaves_until_it_is_acknowledged(tamper, node, monkeypatch):
    done = []
    monkeypatch.setattr(app, "_answered", lambda node, job: done.append(job) or Reply.error(job, "ok"))
    for number in range(3):
        assert node.ask(unit=f"u{number}").ok
    tamper(node)
    assert len(node.ledger.verify().problems) == 1
    for kind in ("survey_data", IDENTIFY):
        assert node.ask(kind).code == "ledger_broken"
    assert len(done) == 3, "nor is anything computed"
    assert any("ledger_broken" in line for line in node.log())
    assert node.ledger.acknowledge("B")
    assert node.ask().ok
    assert "acknowledged" in node.shown()


@pytest.mark.parametrize("tamper", TRACES)
def test_without_an_anchor_it_leaves_no_trace(tamper, node, monkeypatch):
    monkeypatch.setattr(anchor.Anchor, "gap", lambda anchor, last: "")
    for number in range(3):
        node.ask(unit=f"u{number}")
    tamper(node)
    assert node.ask(IDENTIFY).ok and node.ledger.verify().problems == []


# -- replies that Flower makes itself ---------------------------------------------------------------------------------------------


def flowers_reply(node, message, state):
    """What Flower's client process and SuperNode make of a message (`flwr.supernode.runtime.run_clientapp`)."""
    try:
        reply = node.send(message)
    except Exception as problem:
        reply = Message(Error(2, f"{type(problem)}:<'{problem}'>"), reply_to=message)
    reply.metadata.__dict__["_message_id"] = reply.object_id
    state.store_message(reply)
    return reply


def other_messages():
    job = Job("study", "unit", "B", "survey_data", {}, code=code_digest(), scenario="5c" * 32)
    yield "another type", Message(job.to_record(), 1, "train")
    yield "an error", Message(Error(0, "x"), reply_to=Message(job.to_record(), 1, MESSAGE_TYPE))


@pytest.mark.parametrize("guarded", [True, False])
@pytest.mark.parametrize("number", [0, 1], ids=["another type", "no content"])
def test_a_message_that_the_app_does_not_know_is_in_the_record_as_well(number, guarded, node, monkeypatch):
    monkeypatch.setenv(CENTRE_FILE_VARIABLE, str(node.path))
    if guarded:
        monkeypatch.setattr(InMemoryNodeState, "store_message", flower_supernode.store_message)
    _, message = list(other_messages())[number]
    message.metadata.__dict__.update(
        _run_id=1, _message_type=message.metadata.message_type if number == 0 else MESSAGE_TYPE
    )
    message.metadata.__dict__["_message_id"] = message.object_id
    reply = flowers_reply(node, message, NodeStateFactory(ObjectStoreFactory()).state())
    assert reply.has_error()
    expected = [("flower_error", "flower_2", message.object_id)] if guarded else []
    assert [(entry["kind"], entry["code"], entry["received"]) for entry in node.entries()] == expected


def test_the_record_is_one_json_object_a_line_whatever_came(node):
    for words in (ERASE, ROW, "\ud800", '"}\n{"n":1'):
        try:
            node.ask(scenario=words)
        except UnicodeEncodeError:  # that one does not travel
            continue
    for line in node.ledger.path.read_text().split("\n")[:-1]:
        assert isinstance(json.loads(line), dict)
