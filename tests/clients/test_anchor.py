"""The anchor: what is missing at the record's end shows, an honest crash does not, and a syslog gets each head."""

import json
import os
import socket
import stat
import threading

import pytest

from basics import atomic_files
from clients import anchor as anchor_module
from clients.anchor import START, Anchor, Head
from clients.ledger import Ledger, LedgerError
from clients.ledger_line import ACKNOWLEDGED, line_hash
from federation.wire.job import Job, Reply, canonical_json


def reply_to(job, code="ok"):
    return Reply(job.study, job.unit, job.centre, job.kind, code=code)


def add(ledger, number=1):
    job = Job("study", f"unit-{number}", "B", "learn", {"n": number})
    return ledger.record(job, reply_to(job), "B")


@pytest.fixture
def place(tmp_path):
    (tmp_path / "workspace").mkdir()
    return tmp_path


@pytest.fixture
def ledger(place):
    return Ledger(place / "workspace", Anchor(place / "beside" / "centre.anchor", centre="B"))


def lines_of(ledger):
    return ledger.path.read_bytes().splitlines(keepends=True)


def test_it_holds_the_last_entry_and_is_private(ledger):
    entry = [add(ledger, n) for n in range(3)][-1]
    assert ledger.anchor.read() == Head(3, entry["hash"], 0)
    assert stat.S_IMODE(ledger.anchor.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(ledger.anchor.path.parent.stat().st_mode) == 0o700
    assert ledger.verify().problems == []


def cut_off(ledger):
    ledger.path.write_bytes(b"".join(lines_of(ledger)[:-1]))


def cut_in_the_middle_of_a_line(ledger):
    ledger.path.write_bytes(ledger.path.read_bytes()[:-10])


def deleted(ledger):
    ledger.path.unlink()


def emptied(ledger):
    ledger.path.write_bytes(b"")


def replaced(ledger):
    """By a chain of as many entries, each right in itself."""
    previous, lines = START, []
    for number, line in enumerate(lines_of(ledger), 1):
        entry = json.loads(line) | {"previous": previous, "bytes_up": number}
        entry["hash"] = previous = line_hash(entry)
        lines.append(canonical_json(entry).encode() + b"\n")
    ledger.path.write_bytes(b"".join(lines))


def replaced_by_a_longer_one(ledger):
    ledger.path.unlink()
    other = Ledger(ledger.path.parent)
    for number in range(9):
        add(other, 100 + number)


def replaced_by_one_that_is_one_longer(ledger):
    ledger.path.unlink()
    other = Ledger(ledger.path.parent)
    for number in range(5):
        add(other, 100 + number)


def anchor_deleted(ledger):
    ledger.anchor.path.unlink()


def anchor_set_back(ledger):
    entry = json.loads(lines_of(ledger)[1])
    ledger.anchor.hold(2, entry["hash"])


def anchor_damaged(ledger):
    ledger.anchor.path.write_text("nothing")


TAMPERED = {
    cut_off: "ends with entry 3, and its anchor knows entry 4",
    cut_in_the_middle_of_a_line: "ends with entry 3, and its anchor knows entry 4",
    deleted: "the record was deleted: its anchor knows entry 4",
    emptied: "the record was deleted: its anchor knows entry 4",
    replaced: "ends with entry 4 and does not go on from there, while its anchor knows entry 4",
    replaced_by_a_longer_one: "ends with entry 9 and does not go on from there",
    replaced_by_one_that_is_one_longer: "ends with entry 5 and does not go on from there",
    anchor_deleted: "the record has 4 entries and no anchor",
    anchor_set_back: "ends with entry 4 and does not go on from there, while its anchor knows entry 2",
    anchor_damaged: "was not written by this record",
}


@pytest.mark.parametrize("tamper", TAMPERED)
def test_a_record_that_was_tampered_with_is_named_not_continued_and_acknowledged(tamper, ledger):
    for number in range(4):
        add(ledger, number)
    tamper(ledger)
    assert [problem for problem in ledger.verify().problems if TAMPERED[tamper] in problem]
    before = ledger.path.read_bytes() if ledger.path.exists() else None
    for attempt in (ledger.check, lambda: add(ledger)):
        with pytest.raises(LedgerError) as problem:
            attempt()
        assert TAMPERED[tamper] in str(problem.value) and "polycentre centre acknowledge" in str(problem.value)
    assert (ledger.path.read_bytes() if before is not None else None) == before
    found = ledger.acknowledge("B")
    assert TAMPERED[tamper] in found
    ledger.check()
    add(ledger)
    verified = ledger.verify()
    assert verified.problems == [] and ledger.acknowledge("B") == ""
    (noted,) = [entry for entry in verified.entries if entry["kind"] == ACKNOWLEDGED]
    assert TAMPERED[tamper] in noted["note"]


def test_without_an_anchor_none_of_that_shows(place):
    ledger = Ledger(place / "workspace")
    for number in range(4):
        add(ledger, number)
    cut_off(ledger)
    ledger.check()
    add(ledger)
    assert ledger.verify().problems == []


@pytest.mark.parametrize("entries", [0, 1, 4])
def test_a_crash_between_entry_and_anchor_is_repaired_by_itself(entries, ledger, monkeypatch):
    for number in range(entries):
        add(ledger, number)

    class PowerCut(BaseException):
        pass

    def cut(*_, **__):
        raise PowerCut

    with monkeypatch.context() as failing:
        failing.setattr(anchor_module, "write_bytes", cut)
        with pytest.raises(PowerCut):
            add(ledger, 8)
    assert len(lines_of(ledger)) == entries + 1 and (ledger.anchor.read() or Head()).entries == entries
    assert ledger.verify().problems == []
    ledger.check()
    last = add(ledger, 9)
    assert last["n"] == entries + 2 and ledger.anchor.read() == Head(entries + 2, last["hash"])
    assert ledger.verify().problems == []


def test_a_crash_while_the_anchor_is_written_leaves_the_old_one_whole(ledger, monkeypatch):
    add(ledger)
    held = ledger.anchor.path.read_bytes()

    def cut(*_):
        raise OSError("the power")

    with monkeypatch.context() as failing:
        failing.setattr(atomic_files.os, "replace", cut)
        with pytest.raises(OSError, match="the power"):
            add(ledger, 2)
    assert ledger.anchor.path.read_bytes() == held
    add(ledger, 3)
    assert ledger.verify().problems == [] and ledger.anchor.read().entries == 3


def test_the_entry_is_on_the_disk_before_the_anchor(ledger, monkeypatch):
    """The other way round a crash would look as if somebody had cut the record off."""
    done = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: done.append(os.readlink(f"/proc/self/fd/{fd}")) or fsync(fd))
    monkeypatch.setattr(os, "replace", lambda a, b: done.append(f"-> {b}") or replace(a, b))
    add(ledger)
    names = [name.rpartition("/")[2] for name in done]
    assert names.index("ledger.jsonl") < names.index("centre.anchor") < len(names) - 1
    assert names[-1] == "beside", "the rename is on the disk when its folder is"


def test_an_anchor_that_cannot_be_written_stops_the_next_entry_before_it_is_written(ledger):
    add(ledger)
    path = ledger.anchor.path
    path.rename(path.with_name("kept"))
    path.mkdir()
    with pytest.raises(OSError):
        add(ledger, 2)
    path.rmdir()
    path.with_name("kept").rename(path)
    add(ledger, 3)
    assert ledger.verify().problems == []


def test_a_record_of_an_older_version_goes_on_and_gets_an_anchor(ledger):
    unanchored = Ledger(ledger.path.parent)
    previous, lines = START, []
    for number in range(1, 4):
        entry = {
            "n": number, "time": "2026-01-01T00:00:00+00:00", "study": "s", "scenario": "", "unit": "u", "centre": "B", "kind": "k",
            "strategy": "", "code": "ok", "bytes_down": 1, "bytes_up": 1, "sha256": "0" * 64, "epsilon": None, "previous": previous,
        }  # fmt: skip
        entry["hash"] = previous = line_hash(entry)
        lines.append(canonical_json(entry).encode() + b"\n")
    unanchored.path.write_bytes(b"".join(lines))
    assert ledger.verify().problems == []
    assert add(ledger)["n"] == 4 and ledger.verify().problems == [] and ledger.anchor.read().entries == 4
    ledger.anchor.path.unlink()
    with pytest.raises(LedgerError, match="no anchor"):
        ledger.check()


def test_a_last_line_that_was_altered_needs_a_new_file_and_a_word(ledger):
    add(ledger)
    ledger.path.write_bytes(ledger.path.read_bytes().replace(b'"n":1', b'"n":2'))
    with pytest.raises(LedgerError, match="move the file away"):
        ledger.acknowledge("B")
    ledger.path.rename(ledger.path.with_name("kept"))
    assert "the record was deleted" in ledger.acknowledge("B")
    add(ledger)
    assert [entry["n"] for entry in ledger.verify().entries] == [1, 2]


# -- syslog ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def syslog(tmp_path):
    """(address, lines that have come) of a syslog at a socket."""
    path = tmp_path / "s"
    server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    server.bind(str(path))
    came, ended = [], threading.Event()

    def read():
        while (line := server.recv(2048)) != b"end":
            came.append(line.decode().rstrip("\0"))
        ended.set()

    threading.Thread(target=read, daemon=True).start()

    def lines():
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ending:
            ending.connect(str(path))
            ending.send(b"end")
        assert ended.wait(5)
        return came

    yield str(path), lines
    server.close()


def test_each_head_goes_to_the_syslog(place, syslog):
    address, lines = syslog
    ledger = Ledger(place / "workspace", Anchor(place / "anchor", address, "B"))
    entries = [add(ledger, n) for n in range(2)]
    assert lines() == [
        f"<14>polycentre B: entry {entry['n']} of the record has hash {entry['hash']}" for entry in entries
    ]


def test_what_cannot_be_sent_is_said_and_counted_and_the_work_goes_on(place, syslog, caplog):
    address, lines = syslog
    ledger = Ledger(place / "workspace", Anchor(place / "anchor", str(place / "absent"), "B"))
    add(ledger, 1), add(ledger, 2)
    assert ledger.anchor.read().unsent == 2
    assert caplog.text.count("could not be sent to") == 2 and "it is in the record and the anchor" in caplog.text
    again = Ledger(place / "workspace", Anchor(place / "anchor", address, "B"))
    add(again, 3)
    assert again.anchor.read() == Head(3, again.verify().head, 0)
    (line,) = lines()
    assert line.endswith("; 2 entries before it were not sent")


def test_a_syslog_over_the_network():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(5)
        assert anchor_module.send(f"127.0.0.1:{server.getsockname()[1]}", "text") == ""
        assert server.recv(100) == b"<14>text\0"
    assert anchor_module.send("no-such-host.invalid:514", "text") != ""
