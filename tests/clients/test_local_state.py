"""Two snapshots of a centre's state: what a repeated job, a lost reply, a kill and a damaged file leave."""

import numpy as np
import pytest

from clients.local_state import LocalState, StateLost, remembered
from clients.node import Node
from federation.wire.job import Job
from strategies.bodies import OnState

BODY = OnState(federation="f", state_unit="", fresh=0)


@pytest.fixture
def node(tmp_path):
    return Node("A", tmp_path, tmp_path)


def a_job(unit, expects):
    return Job("s", unit, "A", "train_round", {"federation": "f"}, expects_state=expects)


class Counting:
    """Work that adds one to a number, and counts how often it is done."""

    def __init__(self):
        self.calls = []

    def __call__(self, state):
        before = int(state["number"]) if state else 0
        self.calls.append(before)
        answer = {"before": before, "text": "ä"}, {"twice": np.full((2, 1), 2.0 * before, np.float32)}
        return answer, {"number": np.asarray(before + 1), "optimizer.exp_avg": np.arange(3, dtype=np.float32)}


def do(node, unit, expects, work):
    return remembered(node, a_job(unit, expects), BODY, work)


def test_state_goes_from_job_to_job_and_a_repeated_job_is_answered_from_what_was_kept(node):
    work = Counting()
    first = do(node, "u1", 0, work)
    second = do(node, "u2", 1, work)
    assert work.calls == [0, 1]
    for unit, expects, known in (("u2", 1, second), ("u1", 0, first), ("u2", 1, second)):
        body, arrays = do(node, unit, expects, work)
        assert body == known[0]
        assert arrays.keys() == known[1].keys() and arrays["twice"].dtype == np.float32
        assert arrays["twice"].tolist() == known[1]["twice"].tolist()
    assert work.calls == [0, 1], "the work was done again"


def test_two_snapshots_are_kept(node):
    work = Counting()
    for version in range(5):
        do(node, f"u{version}", version, work)
    folder = node.workspace / "states" / "f"
    assert sorted(path.name for path in folder.iterdir()) == ["4.safetensors", "5.safetensors"]
    with pytest.raises(StateLost) as lost:
        do(node, "older", 3, work)
    assert (lost.value.code, lost.value.numbers) == ("state_lost", {"wanted": 3, "have": 5})


def test_the_server_goes_on_from_the_older_state_when_it_lost_the_newer_reply(node):
    work = Counting()
    for version in range(3):
        do(node, f"u{version}", version, work)
    body, _ = do(node, "another", 2, work)  # 3 exists already
    assert body["before"] == 2
    assert do(node, "next", 3, work)[0]["before"] == 3
    assert LocalState(node.workspace / "states" / "f").answer("u2") is None, "what was rolled back no longer answers"


def test_federations_do_not_share_a_state(node):
    work = Counting()
    do(node, "u1", 0, work)
    other = Job("s", "u1", "A", "train_round", {"federation": "g"}, expects_state=0)
    other_body = OnState(federation="g", state_unit="", fresh=0)
    assert remembered(node, other, other_body, work)[0]["before"] == 0
    assert work.calls == [0, 0]


def test_a_centre_that_lost_its_state_says_so(node):
    with pytest.raises(StateLost) as lost:
        do(node, "u", 7, Counting())
    assert lost.value.numbers == {"wanted": 7, "have": 0}


@pytest.mark.parametrize("length", [0, 5, 60, -1])
def test_a_damaged_snapshot_counts_as_lost_and_the_one_before_it_still_serves(node, length):
    work = Counting()
    for version in range(3):
        do(node, f"u{version}", version, work)
    newest = node.workspace / "states" / "f" / "3.safetensors"
    newest.write_bytes(newest.read_bytes()[:length])
    with pytest.raises(StateLost):
        do(node, "u3", 3, work)
    body, _ = do(node, "u2", 2, work)  # the server asks for what it misses again
    assert body["before"] == 2 and work.calls[-1] == 2
    assert do(node, "u3", 3, work)[0]["before"] == 3


def test_a_file_of_another_origin_is_not_an_answer(node):
    from safetensors.numpy import save_file

    work = Counting()
    do(node, "u0", 0, work)
    save_file({"x": np.zeros(2)}, node.workspace / "states" / "f" / "2.safetensors")
    assert do(node, "u0", 0, work)[0]["before"] == 0
    assert work.calls == [0]


@pytest.mark.parametrize("when", ["before writing", "before the rename"])
def test_a_kill_while_writing_leaves_the_snapshots_before(node, when, monkeypatch):
    work = Counting()
    for version in range(2):
        do(node, f"u{version}", version, work)

    def killed(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("os.getpid", lambda: 1)  # a process that will not come back
        patch.setattr("clients.local_state." + ("save_file" if when == "before writing" else "os.replace"), killed)
        with pytest.raises(KeyboardInterrupt):
            do(node, "u2", 2, work)
    folder = node.workspace / "states" / "f"
    assert sorted(path.name for path in folder.glob("*.safetensors") if path.name[0] != ".") == [
        "1.safetensors",
        "2.safetensors",
    ]
    assert do(node, "u1", 1, work)[0]["before"] == 1, "its reply is still there"
    assert do(node, "u2", 2, work)[0]["before"] == 2
    assert work.calls == [0, 1, 2, 2]
    do(node, "u3", 3, work)
    assert not list(folder.glob(".*")), "what a killed process left is cleared away"


def test_work_that_fails_leaves_no_snapshot(node):
    work = Counting()
    do(node, "u0", 0, work)

    def fails(state):
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError):
        do(node, "u1", 1, fails)
    assert do(node, "u1", 1, work)[0]["before"] == 1


def test_version_0_is_the_empty_state_even_where_a_state_is(node):
    """So a centre starts again from the beginning when the server says so."""
    work = Counting()
    for version in range(3):
        do(node, f"u{version}", version, work)
    assert do(node, "fresh", 0, work)[0]["before"] == 0
    assert do(node, "next", 1, work)[0]["before"] == 1
