"""The record of what left the hospital: every edited, removed or moved line is found, and a power cut does not end it."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from clients.ledger import START, Ledger, LedgerError, content_digest
from federation.wire.job import Job, Reply

CHECKOUT = Path(__file__).resolve().parents[2]


def a_job(number=1, **fields):
    return Job("study", f"unit-{number}", "B", "learn", {"n": number}, scenario="5c" * 32, strategy="local", **fields)


def a_reply(job, **fields):
    return Reply(job.study, job.unit, job.centre, job.kind, **({"body": {"metrics": {"auroc": 0.5}}} | fields))


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path)


def test_a_line_tells_what_left_for_whom_and_how_much(ledger):
    job = a_job(arrays={"in": np.zeros(4, np.float32)})
    reply = a_reply(job, arrays={"weights.a": np.zeros(3, np.float32)})
    entry = ledger.record(job, reply, "B")
    assert json.loads(ledger.path.read_text()) == entry
    assert (entry["n"], entry["previous"], entry["epsilon"]) == (1, START, None)
    assert {k: entry[k] for k in ("study", "scenario", "unit", "centre", "kind", "strategy", "code")} == {
        "study": "study", "scenario": "5c" * 32, "unit": "unit-1", "centre": "B", "kind": "learn", "strategy": "local", "code": "ok",
    }  # fmt: skip
    assert (entry["bytes_down"], entry["bytes_up"]) == (job.nbytes, reply.nbytes) and entry["bytes_up"] > 12
    assert entry["sha256"] == content_digest(reply) and entry["time"].endswith("+00:00")
    assert ledger.path.stat().st_mode & 0o077 == 0, "what was asked of a centre is confidential"


def test_lines_are_chained_and_verified(ledger):
    entries = [ledger.record(a_job(i), a_reply(a_job(i)), "B") for i in range(5)]
    found = ledger.verify()
    assert found.problems == [] and found.entries == entries and found.head == entries[-1]["hash"]
    assert [entry["previous"] for entry in entries] == [START, *(entry["hash"] for entry in entries[:-1])]


def test_an_empty_record(ledger):
    assert ledger.verify().problems == [] and ledger.verify().head == START


def test_the_digest_is_of_everything_that_leaves():
    job = a_job()
    base = a_reply(job, arrays={"a": np.arange(4, dtype=np.float32)})
    others = [
        a_reply(job, arrays={"b": np.arange(4, dtype=np.float32)}),
        a_reply(job, arrays={"a": np.arange(4, dtype=np.float32).reshape(2, 2)}),
        a_reply(job, arrays={"a": np.arange(4, dtype=np.float32).view(np.int32)}),
        a_reply(job, arrays={"a": np.arange(1, 5, dtype=np.float32)}),
        a_reply(job, body={"metrics": {}}, arrays={"a": np.arange(4, dtype=np.float32)}),
        a_reply(job, code="policy", arrays={"a": np.arange(4, dtype=np.float32)}),
    ]
    digests = {content_digest(reply) for reply in (base, *others)}
    assert len(digests) == 1 + len(others)
    strided = np.arange(8, dtype=np.float32)[::2] / 2
    assert content_digest(a_reply(job, arrays={"a": strided})) == content_digest(base)


def filled(folder, lines=5):
    ledger = Ledger(Path(folder))
    for i in range(lines):
        ledger.record(a_job(i), a_reply(a_job(i)), "B")
    return ledger


@settings(max_examples=60)
@given(st.data())
def test_any_edited_byte_is_found(data):
    with tempfile.TemporaryDirectory() as folder:
        ledger = filled(folder)
        content = bytearray(ledger.path.read_bytes())
        place = data.draw(st.integers(0, len(content) - 1))
        byte = data.draw(st.integers(0, 255))
        assume(content[place] != byte)
        content[place] = byte
        ledger.path.write_bytes(content)
        assert ledger.verify().problems


@settings(max_examples=40)
@given(st.data())
def test_lines_removed_or_moved_are_found(data):
    with tempfile.TemporaryDirectory() as folder:
        ledger = filled(folder)
        lines = ledger.path.read_bytes().splitlines(keepends=True)
        order = data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=6))
        assume(order != list(range(len(order))))  # a tail cut off is seen by the head only
        ledger.path.write_bytes(b"".join(lines[i] for i in order))
        assert ledger.verify().problems


def test_a_rewritten_line_with_a_hash_of_its_own_is_found_by_the_next(ledger, tmp_path):
    from clients.ledger import _hash
    from federation.wire.job import canonical_json

    filled(tmp_path)
    lines = ledger.path.read_text().splitlines()
    entry = json.loads(lines[2]) | {"bytes_up": 1}
    entry["hash"] = _hash(entry)
    lines[2] = canonical_json(entry)
    ledger.path.write_text("\n".join(lines) + "\n")
    assert ledger.verify().problems == [
        "line 4 (entry 4) does not follow the line before: lines were removed, moved or replaced"
    ]


def test_a_tail_cut_off_changes_the_head(ledger, tmp_path):
    filled(tmp_path)
    head = ledger.verify().head
    lines = ledger.path.read_bytes().splitlines(keepends=True)
    ledger.path.write_bytes(b"".join(lines[:-1]))
    assert ledger.verify().problems == [] and ledger.verify().head != head


@pytest.mark.parametrize("keep", [1, 40, -1])
def test_a_line_torn_by_a_power_cut_is_kept_aside_and_named_and_the_chain_goes_on(keep, tmp_path):
    ledger = filled(tmp_path, 3)
    lines = ledger.path.read_bytes().splitlines(keepends=True)
    torn = lines[2][:keep]
    ledger.path.write_bytes(lines[0] + lines[1] + torn)
    assert ledger.verify().problems == ["line 3 is incomplete: the power or the disk failed while it was written"]
    ledger.record(a_job(9), a_reply(a_job(9)), "B")
    found = ledger.verify()
    assert found.problems == [] and [entry["kind"] for entry in found.entries] == [
        "learn",
        "learn",
        "torn_line",
        "learn",
    ]
    assert (tmp_path / "ledger.torn").read_bytes() == torn + b"\n"


def test_nothing_is_written_after_a_last_line_that_was_altered(tmp_path):
    ledger = filled(tmp_path, 2)
    before = ledger.path.read_bytes().replace(b'"n":2', b'"n":3')
    ledger.path.write_bytes(before)
    with pytest.raises(LedgerError, match="the last line of .*ledger.jsonl was altered"):
        ledger.record(a_job(), a_reply(a_job()), "B")
    assert ledger.path.read_bytes() == before


def test_two_processes_write_one_chain(tmp_path):
    code = (
        "import sys; sys.path.insert(0, sys.argv[2]); from pathlib import Path; from clients.ledger import Ledger;"
        "from federation.wire.job import Job, Reply; job = Job('s', 'u', 'B', 'learn', {}); print('ready', flush=True); input();"
        "[Ledger(Path(sys.argv[1])).record(job, Reply.error(job, 'ok'), 'B') for _ in range(200)]"
    )
    command = [sys.executable, "-c", code, str(tmp_path), str(CHECKOUT)]
    running = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for process in running:
        assert process.stdout.readline() == "ready\n"
    for process in running:  # both begin now
        process.stdin.write("\n")
        process.stdin.close()
    assert [process.wait(60) for process in running] == [0, 0]
    found = Ledger(tmp_path).verify()
    assert found.problems == [] and len(found.entries) == 400
