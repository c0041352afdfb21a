"""Flower's own error replies: each has a line in the record before it is sent, and no text of an error leaves."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode.nodestate import NodeStateFactory
from flwr.supernode.nodestate.in_memory_nodestate import CLIENT_APP_CRASHED_ERROR, InMemoryNodeState

from basics.plugins import CENTRE_FILE_VARIABLE
from clients import flower_errors, flower_supernode
from clients.centre_file import CentreFile, CentreFileError, RecordPlace
from clients.counted_refusals import BURST
from clients.ledger import Ledger
from federation.wire.job import MESSAGE_TYPE, canonical_json

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def identity(monkeypatch):
    """Flower makes no message without one."""
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


@pytest.fixture
def node(centre_file, tmp_path, monkeypatch):
    """Settings of centre B, whose SuperNode runs in this process."""
    path = centre_file(tmp_path / "B", "B")
    file = CentreFile.read(path)
    file.workspace.mkdir()
    monkeypatch.setenv(CENTRE_FILE_VARIABLE, str(path))
    monkeypatch.setattr(InMemoryNodeState, "store_message", flower_supernode.store_message)
    return file


@pytest.fixture
def state(node):
    return NodeStateFactory(ObjectStoreFactory()).state()


def a_message(text="{}"):
    message = Message(RecordDict({"envelope": ConfigRecord({"json": text})}), 1, MESSAGE_TYPE)
    message.metadata.__dict__.update(_run_id=1)
    message.metadata.__dict__.update(_message_id=message.object_id)
    return message


def error_reply(message, code=2, reason="reason"):
    reply = Message(Error(code, reason), reply_to=message)
    reply.metadata.__dict__["_message_id"] = reply.object_id
    return reply


def entries(node):
    verified = Ledger.of(node).verify()
    assert verified.problems == []
    return verified.entries


def test_an_error_reply_has_a_line_before_it_can_be_sent(node, state):
    message = a_message()
    reply = error_reply(message)
    state.store_message(reply)
    assert state.get_messages_legacy(is_reply=True) == [reply]
    (entry,) = entries(node)
    assert (entry["kind"], entry["code"], entry["centre"]) == ("flower_error", "flower_2", "B")
    assert entry["received"] == message.object_id
    sent = canonical_json({"code": 2, "reason": "reason"}).encode()
    assert entry["sha256"] == hashlib.sha256(sent).hexdigest() and entry["bytes_up"] == len(sent)


def test_the_reply_for_a_client_process_that_died_has_one_too(node, state):
    message = a_message()
    state.store_message(message)
    state.get_messages_legacy(is_reply=False)
    state._store_error_replies({1}, CLIENT_APP_CRASHED_ERROR)
    (reply,) = state.get_messages_legacy(is_reply=True)
    assert reply.error.code == ErrorCode.CLIENT_APP_CRASHED
    (entry,) = entries(node)
    assert (entry["code"], entry["received"]) == (f"flower_{ErrorCode.CLIENT_APP_CRASHED}", message.object_id)


def test_only_errors_and_each_only_once(node, state):
    message = a_message()
    state.store_message(message)
    answer = Message(RecordDict({}), reply_to=message)
    answer.metadata.__dict__["_message_id"] = answer.object_id
    state.store_message(answer)
    assert entries(node) == []
    reply = error_reply(message)
    state.store_message(reply)
    state.store_message(reply)
    assert len(entries(node)) == 1


def test_many_of_them_are_counted(node, state):
    for number in range(3 * BURST):
        state.store_message(error_reply(a_message(str(number))))
    assert len(entries(node)) == BURST and Ledger.of(node).verify().counted == 2 * BURST


def test_one_that_cannot_be_recorded_is_said_on_the_console(node, state, caplog):
    (node.workspace / "ledger.jsonl").write_text("{}\n")
    state.store_message(error_reply(a_message()))
    assert "Flower's error reply 2 is not in the record" in caplog.text and "was altered" in caplog.text


def test_its_text_stays_in_node_log(node):
    reply = error_reply(a_message(), reason="<class 'ValueError'>:<'/data/ward7/Jane Doe\n2026-01-01T00:00:00Z x'>")
    reply = flower_errors.without_text(reply, node.workspace)
    assert reply.error.code == 2 and "Jane" not in reply.error.reason and "/data" not in reply.error.reason
    reference = reply.error.reason.split("reference ")[1].rstrip(")")
    first, *more = (node.workspace / "node.log").read_text().splitlines()
    assert f"reference {reference}" in first and "Jane Doe" in more[0]
    assert all(line.startswith("    | ") for line in more)


def test_its_text_stays_on_the_console_where_there_is_no_workspace(caplog):
    reply = flower_errors.without_text(error_reply(a_message(), reason="Jane\x1b[2K"), None)
    assert "Jane" not in reply.error.reason and r"Jane\x1b[2K" in caplog.text


def test_an_id_that_is_no_digest_is_hashed():
    reply = error_reply(a_message())
    reply.metadata.__dict__["_reply_to_message_id"] = "x" * 1_000_000
    assert flower_errors.received_by_flower(reply) == hashlib.sha256(b"x" * 1_000_000).hexdigest()


def test_where_the_record_is_is_read_as_a_job_reads_it(centre_file, tmp_path):
    for settings in ({}, {"workspace": "/elsewhere", "log": {"anchor": "a/b.anchor", "syslog": True}}):
        path = centre_file(tmp_path, **settings)
        file, place = CentreFile.read(path), RecordPlace.read(path)
        assert (place.centre, place.workspace, place.log) == (file.centre, file.workspace, file.log)
        centre, ledger = Ledger.of_path(path)
        assert (centre, ledger.path, ledger.anchor.path) == ("B", file.workspace / "ledger.jsonl", file.log.anchor)


@pytest.mark.parametrize("text", ["[", "centre: B", "- 1", ""])
def test_a_file_that_does_not_say_it_is_one_line(text, tmp_path):
    (tmp_path / "centre.yaml").write_text(text)
    with pytest.raises(CentreFileError) as problem:
        Ledger.of_path(tmp_path / "centre.yaml")
    assert "\n" not in str(problem.value)


def test_an_idle_node_imports_no_torch_for_it(centre_file, tmp_path):
    path = centre_file(
        tmp_path, data={"source": "phantom", "patients": 3, "scanner": "film"}, release={"strategies": ["local"]}
    )
    code = (
        "import json, sys; from pathlib import Path; from clients import flower_supernode; from clients.ledger import Ledger;"
        "Ledger.of_path(Path(sys.argv[1])); print(json.dumps([name in sys.modules for name in ('torch', 'pandas')]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], cwd=CHECKOUT, capture_output=True, text=True, timeout=60
    )
    assert json.loads(done.stdout) == [False, False], done.stderr
