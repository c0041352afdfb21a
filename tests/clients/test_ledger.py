"""The record of what left the hospital: every edited, removed or moved line is found, and a power cut does not end it."""

import hashlib
import json
import subprocess
import sys
import tempfile
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from clients import ledger_line
from clients.anchor import START
from clients.counted_refusals import BURST, BURST_S
from clients.digests import content_digest, job_digest, record_digest
from clients.ledger import Ledger, LedgerError
from clients.ledger_line import COUNTED, LONGEST_LINE, line_hash
from federation.wire.arrays import write_array
from federation.wire.job import Job, Reply, canonical_json

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
    filled(tmp_path)
    lines = ledger.path.read_text().splitlines()
    entry = json.loads(lines[2]) | {"bytes_up": 1}
    entry["hash"] = line_hash(entry)
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


# -- what came in ------------------------------------------------------------------------------------------------------


def test_a_line_holds_the_digest_of_what_came_in(ledger):
    job = a_job(arrays={"in": np.arange(4, dtype=np.float32)})
    entry = ledger.record(job, a_reply(job), "B")
    assert entry["received"] == job_digest(job) != entry["sha256"]
    assert ledger.record(None, Reply("", "", "", "", code="malformed"), "B", "ab" * 32)["received"] == "ab" * 32


def test_the_digest_of_a_job_is_of_everything_in_it():
    base = a_job(arrays={"a": np.arange(4, dtype=np.float32)})
    changes = [
        {"study": "x"}, {"unit": "x"}, {"centre": "C"}, {"kind": "x"}, {"body": {"n": 2}}, {"label": "x"}, {"code": "x"},
        {"place": {"out": "x"}}, {"expects_state": 1}, {"timeout_s": 1.0}, {"scenario": "x"}, {"strategy": "x"},
        {"plugins": [{"name": "x"}]}, {"arrays": {"b": np.arange(4, dtype=np.float32)}},
        {"arrays": {"a": np.arange(1, 5, dtype=np.float32)}}, {"arrays": {"a": np.arange(4, dtype=np.float32).view(np.int32)}},
        {"arrays": {"a": np.arange(4, dtype=np.float32).reshape(2, 2)}},
    ]  # fmt: skip
    assert {key for change in changes for key in change} == {one.name for one in fields(Job)}
    digests = {job_digest(job) for job in (base, *(replace(base, **change) for change in changes))}
    assert len(digests) == 1 + len(changes)
    assert job_digest(Job.from_record(base.to_record())) == job_digest(base), "the same on both sides of the wire"


def test_the_digest_of_a_message_that_is_no_job_is_of_everything_in_it():
    def message(text="{", key="json", name="envelope", array=(1.0, 2.0), dtype=np.float32, metric=1.0):
        arrays = ArrayRecord({"a": write_array(np.array(array, dtype))})
        return RecordDict({name: ConfigRecord({key: text}), "arrays": arrays, "m": MetricRecord({"x": metric})})

    others = [
        message("["), message(key="j"), message(name="e"), message(array=(1.0, 3.0)), message(dtype=np.float64),
        message(metric=2.0), message(b"{"), message(["{"]), RecordDict({}),
    ]  # fmt: skip
    digests = {record_digest(record) for record in (message(), *others)}
    assert len(digests) == 1 + len(others) and record_digest(message()) in digests
    long, longer, other = message("x" * 1000), message("x" * 1001), message("x" * 999 + "y")
    assert record_digest(long, 999) != record_digest(longer, 999), "the size counts"
    assert record_digest(long, 500) == record_digest(other, 500) and record_digest(long) != record_digest(other)


# -- what a job can do to the record ---------------------------------------------------------------------------------------

TEXTS = ("study", "unit", "centre", "kind", "scenario", "strategy")


@settings(max_examples=60)
@given(st.dictionaries(st.sampled_from(TEXTS), st.text(max_size=300)), st.text(max_size=200))
def test_whatever_a_job_says_a_line_is_short_prints_and_can_be_verified(texts, code):
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder))
        job = replace(a_job(), **{key: text * 40 for key, text in texts.items()})
        ledger.record(job, Reply.error(job, code or "ok"), "B")
        ledger.record(job, Reply.error(job, "ok"), "B")
        assert ledger.verify().problems == []
        for line in ledger.path.read_bytes().splitlines():
            assert len(line) < LONGEST_LINE
            assert all(value.isprintable() for value in json.loads(line).values() if isinstance(value, str))


def test_the_longest_line_there_can_be(ledger):
    widest = "\U0001f600" * 10_000_000
    job = replace(a_job(), **dict.fromkeys(TEXTS, widest))
    ledger.record(job, Reply("", "", "", "", code=widest), widest)
    assert ledger.path.stat().st_size < LONGEST_LINE and ledger.verify().problems == []


@pytest.fixture
def clock(monkeypatch):
    """Function: move the record's clock on by some seconds."""
    now = [datetime(2026, 12, 1, 12, 0, 5, tzinfo=UTC)]

    monkeypatch.setattr(ledger_line, "now", lambda: now[0])

    def move(seconds):
        now[0] += timedelta(seconds=seconds)

    return move


def refuse(ledger, number=1):
    job = a_job(number)
    return ledger.record(job, Reply.error(job, "paused"), "B")


def test_of_many_refusals_in_a_minute_the_first_have_lines_and_the_others_a_number(ledger, clock):
    written = [refuse(ledger, number) for number in range(100)]
    assert [entry is not None for entry in written] == [True] * BURST + [False] * (100 - BURST)
    assert len(ledger.path.read_bytes().splitlines()) == BURST and ledger.verify().counted == 100 - BURST
    clock(BURST_S)
    assert refuse(ledger)["n"] == BURST + 2
    found = ledger.verify()
    assert found.problems == [] and found.counted == 0
    summary = found.entries[-2]
    assert (summary["kind"], summary["code"], summary["replies"]) == (COUNTED, COUNTED, 100 - BURST)
    job = a_job(1)
    assert summary["bytes_down"] >= (100 - BURST) * job.nbytes and summary["bytes_up"] > 0
    chained = START
    for number in range(BURST, 100):
        chained = hashlib.sha256((chained + job_digest(a_job(number))).encode()).hexdigest()
    assert summary["received"] == chained, "each that was counted is still bound by its hash"


def test_nothing_that_leaves_with_content_is_only_counted(ledger, clock):
    for number in range(50):
        refuse(ledger, number)
    for number in range(30):
        assert ledger.record(a_job(number), a_reply(a_job(number)), "B") is not None
    entries = ledger.verify().entries
    assert [entry["code"] for entry in entries] == ["paused"] * BURST + [COUNTED] + ["ok"] * 30
    assert sum(entry["replies"] for entry in entries) == 80


def test_a_flood_of_hours_is_some_lines_a_minute(ledger, clock):
    for _ in range(600):
        refuse(ledger)
        clock(1)
    found = ledger.verify()
    assert found.problems == [] and sum(entry["replies"] for entry in found.entries) + found.counted == 600
    assert len(found.entries) <= (BURST + 1) * 11
    assert ledger.path.stat().st_size < len(found.entries) * 1500


def test_refusals_that_come_slowly_have_a_line_each(ledger, clock):
    for _ in range(60):
        assert refuse(ledger) is not None
        clock(BURST_S // BURST + 1)


def test_a_clock_that_is_set_back_does_not_silence_the_record(ledger, clock):
    for _ in range(BURST):
        refuse(ledger)
    clock(-86_400)
    assert refuse(ledger) is not None


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"replies":1}', b"\xff"])
def test_a_number_of_refusals_that_was_altered_is_named(content, ledger, clock):
    for number in range(BURST + 1):
        refuse(ledger, number)
    ledger.path.with_name("ledger.refusals").write_bytes(content)
    assert any("ledger.refusals was altered" in problem for problem in ledger.verify().problems)
    with pytest.raises(LedgerError, match=r"ledger\.refusals was altered"):
        refuse(ledger)
    assert "ledger.refusals was altered" in ledger.acknowledge("B")
    assert refuse(ledger) is None and ledger.verify().problems == []


def test_lines_of_an_older_version_are_still_verified(ledger):
    previous = START
    with open(ledger.path, "wb") as file:
        for number in range(1, 4):
            entry = ledger_line.facts("learn", "ok", study="s" * 9) | {
                "n": number,
                "time": "t",
                "previous": previous,
            }
            entry = {key: value for key, value in entry.items() if key not in ("received", "replies", "note")}
            entry["hash"] = previous = line_hash(entry)
            file.write(canonical_json(entry).encode() + b"\n")
    assert ledger.record(a_job(), a_reply(a_job()), "B")["n"] == 4
    assert ledger.verify().problems == [] and "received" not in ledger.verify().entries[0]
    ledger.path.write_bytes(ledger.path.read_bytes().replace(b"s" * 9, b"t" * 9, 1))
    assert "line 1 (entry 1) was edited" in ledger.verify().problems[0]
