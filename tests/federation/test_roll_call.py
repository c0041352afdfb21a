"""Nodes say which centre they are; impossible answers; and a node that is lost and comes back. Over the in-process grid."""

import time

import pytest
from flwr.app import Error, Message
from flwr.clientapp import ClientApp

from federation.flower.in_process import FIRST_NODE, InProcessGrid
from federation.wire.errors import StudyError
from federation.wire.grid_centres import NODE_UNAVAILABLE, GridCentres
from federation.wire.job import IDENTIFY, PROTOCOL, Job, Reply
from federation.wire.roll_call import RollCall

CODE = "5a17c0de"


def honest_app():
    """Answers any job with the centre of the node's configuration; its id names the node."""
    app = ClientApp()

    @app.query()
    def handle(message, context):
        job = Job.from_record(message.content)
        if "broken" in context.node_config:
            raise ImportError("no module named clients")
        if "centre" not in context.node_config:
            reply = Reply.error(job, "bad_node_config", key="centre")
        else:
            own = {"code": CODE, "clock": time.time()} | context.node_config
            body = {key: own[key] for key in ("centre", "code", "clock")} | {"node": str(context.node_id)}
            reply = Reply(job.study, job.unit, job.centre, job.kind, body=body)
        return Message(reply.to_record(), reply_to=message)

    return app


@pytest.fixture(autouse=True)
def _no_real_time(clock):
    """Waiting takes no time of the machine's."""


def roll_call(grid, centres, **options):
    return RollCall(grid, centres, code=CODE, **options)


class Nodes(InProcessGrid):
    """Nodes 101, 102, ... of the given centres, which go `offline` and come back; a message to one that is away fails."""

    def __init__(self, *centres, **options):
        configs = {
            FIRST_NODE + i: centre if isinstance(centre, dict) else {"centre": centre}
            for i, centre in enumerate(centres)
        }
        self.offline = set()
        self.silent = set()
        self.asked = []
        self.pushed = []
        super().__init__(honest_app(), len(centres), {}, node_configs=configs, fault=self._fault, **options)

    def get_node_ids(self):
        return [node for node in super().get_node_ids() if node not in self.offline]

    def push_messages(self, messages):
        for message in messages:
            job = Job.from_record(message.content)
            (self.asked if job.kind == IDENTIFY else self.pushed).append(message.metadata.dst_node_id)
        return super().push_messages(messages)

    def pull_messages(self, message_ids):
        wanted = [i for i in message_ids if self._waiting[i].metadata.dst_node_id not in self.silent]
        return super().pull_messages(wanted)

    def _fault(self, message):
        if message.metadata.dst_node_id in self.offline:
            return Message(Error(code=NODE_UNAVAILABLE, reason="node unavailable"), reply_to=message)
        return None


def test_every_centre_gets_its_node_in_whatever_order_they_are():
    grid = Nodes("C", "A", "B")
    lanes = roll_call(grid, ["A", "B", "C"]).wait(5.0)
    assert lanes == {"A": [102], "B": [103], "C": [101]}
    assert sorted(grid.asked) == [101, 102, 103], "each node is asked once"


def test_a_node_that_comes_late_is_waited_for(clock):
    grid = Nodes("A", "B")
    grid.offline = {102}
    clock.later(4.0, grid.offline.clear)
    assert roll_call(grid, ["A", "B"]).wait(5.0) == {"A": [101], "B": [102]}
    assert 4.0 <= clock.now < 5.0


def test_a_node_that_is_online_has_time_to_answer(clock):
    grid = Nodes("A", "B")
    grid.silent = {102}
    clock.later(50.0, grid.silent.clear)
    assert roll_call(grid, ["A", "B"]).wait(0.0) == {"A": [101], "B": [102]}
    grid.silent = {102}
    asked = clock.now
    with pytest.raises(StudyError, match="no node of B came"):
        roll_call(grid, ["A", "B"]).wait(0.0)
    assert 60.0 < clock.now - asked < 61.0


def test_a_node_that_goes_before_it_answers_is_asked_anew_when_it_is_back():
    grid = Nodes("A", "B")
    roll = roll_call(grid, ["A", "B"])
    grid.silent = {102}
    roll.lanes()
    grid.offline, grid.silent = {102}, set()
    while len(grid.asked) == 2 and grid._waiting:
        roll.lanes()  # Flower answers for it: the node is unavailable
    grid.offline = set()
    assert roll.wait(0.5) == {"A": [101], "B": [102]}
    assert grid.asked == [101, 102, 102]


def test_a_centre_without_a_node_is_named_with_what_was_there_instead():
    notes = []
    roll = roll_call(Nodes("A", "Bee"), ["A", "B"], on_note=notes.append)
    with pytest.raises(StudyError) as end:
        roll.wait(0.05)
    text = str(end.value)
    assert text.startswith("no node of B came within 0 s (online: A); start the SuperNode of each centre, then resume")
    assert "node 102 is centre 'Bee', which this scenario does not have" in text and "\n" not in text
    assert end.value.exit_status == 1 and len(notes) == 1


def test_two_nodes_of_one_centre_are_refused():
    with pytest.raises(StudyError, match=r"nodes 10[13] and 10[13] both say that they are centre 'A'; stop one") as end:
        roll_call(Nodes("A", "B", "A"), ["A", "B"]).wait(5.0)
    assert end.value.exit_status == 2


def test_a_node_of_another_study_is_left_alone_with_a_note():
    notes = []
    lanes = roll_call(Nodes("A", "Z"), ["A"], on_note=notes.append).wait(5.0)
    assert lanes == {"A": [101]}
    assert notes == ["node 102 is centre 'Z', which this scenario does not have"]


@pytest.mark.parametrize(
    ("config", "expected"),
    [({}, "configuration of its node lacks centre"), ({"broken": True}, "could not run this project's code")],
)
def test_a_node_that_cannot_say_who_it_is(config, expected):
    notes = []
    with pytest.raises(StudyError, match="no node of B came"):
        roll_call(Nodes("A", config), ["A", "B"], on_note=notes.append).wait(0.05)
    (note,) = notes
    assert expected in note and "102" in note


def test_a_dead_node_that_still_counts_as_online_holds_up_the_start_for_ten_seconds_only(clock):
    grid = Nodes("A", "B", "B")
    grid.silent = {103}
    assert roll_call(grid, ["A", "B"]).wait(60.0) == {"A": [101], "B": [102]}
    assert 10.0 < clock.now < 11.0


def test_a_node_with_other_code_is_named_with_both_digests_and_what_to_update(clock):
    notes = []
    grid = Nodes("A", {"centre": "B", "code": "0ther"})
    with pytest.raises(StudyError, match="restart the SuperNode, then resume") as end:
        roll_call(grid, ["A", "B"], on_note=notes.append).wait(600.0)
    assert clock.now < 1, "it does not wait for what cannot change"
    (note,) = notes
    assert note.startswith(
        "node 102 (centre 'B') runs other code (digest 0ther) than the server (digest 5a17c0de); update"
    )
    assert note in str(end.value) and grid.pushed == [], "named, and not run"


def test_a_node_of_another_protocol_is_named_with_both_versions(monkeypatch):
    notes = []
    grid = Nodes("A")

    def older(message):
        reply = Reply.error(Job.from_record(message.content), "ok").to_record()
        text = reply.config_records["envelope"]["json"]
        reply.config_records["envelope"]["json"] = text.replace(f'"protocol":{PROTOCOL}', '"protocol":1')
        return Message(reply, reply_to=message)

    grid._fault = older
    with pytest.raises(StudyError):
        roll_call(grid, ["A"], on_note=notes.append).wait(0.05)
    assert notes == [
        f"node '101' speaks version 1 of the protocol, and the server version {PROTOCOL}; update the older one"
    ]


@pytest.mark.parametrize(
    ("off", "expected"), [(-90.0, "90 s behind the server's"), (400.0, "400 s ahead of the server's")]
)
def test_a_clock_that_is_off_is_named_with_its_centre_and_by_how_much(off, expected):
    notes = []
    grid = Nodes("A", {"centre": "B", "clock": time.time() + off})
    assert roll_call(grid, ["A", "B"], on_note=notes.append).wait(5.0) == {"A": [101], "B": [102]}
    (note,) = notes
    assert note.startswith(f"the clock of centre 'B' is {expected}; ") and "set it (NTP)" in note


@pytest.mark.parametrize("off", [-50.0, 50.0])
def test_a_clock_that_is_a_little_off_is_not_noted(off):
    notes = []
    roll_call(Nodes({"centre": "B", "clock": time.time() + off}), ["B"], on_note=notes.append).wait(5.0)
    assert notes == []


def test_a_refused_bundle_is_reported_as_a_refusal_of_its_centre():
    notes = []
    grid = Nodes("A")

    def refusing(message):
        job = Job.from_record(message.content)
        reply = Reply.error(job, "bundle_not_approved", bundle="ab" * 32, own="cd" * 32, at="A")
        return Message(reply.to_record(), reply_to=message)

    grid._fault = refusing
    with pytest.raises(StudyError):
        roll_call(grid, ["A"], on_note=notes.append).wait(600.0)
    (note,) = notes
    assert note.startswith("node '101' runs only approved app bundles") and note.endswith("(centre 'A')")
    assert "ab" * 32 in note and "cd" * 32 in note


# -- a node is lost ------------------------------------------------------------------------------------------------


def centres_over(grid, names=("A", "B"), **options):
    roll = roll_call(grid, names)
    events = []
    centres = GridCentres(
        grid, roll.wait(5.0), simulated=False, relocate=roll.lanes,
        on_event=lambda event, **fields: events.append((event, fields.get("text", ""))), **options,
    )  # fmt: skip
    return centres, events


def a_job(unit, centre):
    return Job("s", unit, centre, "learn", {})


@pytest.mark.parametrize("comes_back_as", [102, 103])
def test_a_lost_node_is_found_again_under_its_old_or_a_new_number(comes_back_as, clock):
    grid = Nodes("A", "B", "B")
    grid.offline = {103}
    centres, events = centres_over(grid, patience_s=5.0)
    grid.offline = {102, 103}
    clock.later(3.0, lambda: grid.offline.remove(comes_back_as))
    replies = centres.gather([a_job("u1", "A"), a_job("u2", "B"), a_job("u3", "B")])
    assert [reply.code for reply in replies] == ["ok"] * 3
    assert {reply.body["node"] for reply in replies[1:]} == {str(comes_back_as)}
    assert [text for event, text in events if event == "note"] == [
        "its node was lost; waiting up to 5 s for it",
        "its node is back",
    ]
    assert grid.pushed.count(102) <= 3, "an offline node answers at once: it must not be asked in a loop"


def test_a_node_that_stays_away_fails_its_centre_only_and_later_jobs_at_once(clock):
    grid = Nodes("A", "B")
    centres, _ = centres_over(grid, patience_s=60.0)
    grid.offline = {102}
    replies = centres.gather([a_job("u1", "B"), a_job("u2", "A"), a_job("u3", "B")])
    assert [reply.code for reply in replies] == ["node_unavailable", "ok", "node_unavailable"]
    assert grid.pushed.count(102) == 1 and 60.0 < clock.now < 62.0
    before = clock.now
    (reply,) = centres.gather([a_job("u4", "B")])
    assert reply.code == "node_unavailable" and clock.now - before < 2.0, "what comes later does not wait again"
    grid.offline = set()
    (reply,) = centres.gather([a_job("u5", "B")])
    assert reply.ok, "unless the node is back"


def test_a_node_that_is_lost_again_and_again_is_given_up_after_the_retries():
    class Flapping(Nodes):
        def _fault(self, message):
            if Job.from_record(message.content).kind != IDENTIFY and message.metadata.dst_node_id == 102:
                return Message(Error(code=NODE_UNAVAILABLE, reason=""), reply_to=message)
            return None

    grid = Flapping("A", "B")
    centres, _ = centres_over(grid, patience_s=5.0, retries=2)
    (reply,) = centres.gather([a_job("u", "B")])
    assert reply.code == "node_unavailable" and grid.pushed.count(102) == 3


def test_what_a_node_says_of_itself_is_passed_on():
    said = []
    grid = Nodes({"centre": "A"}, {"centre": "B", "clock": time.time() - 90.0})
    roll_call(grid, ["A", "B"], on_node=lambda **what: said.append(what)).wait(5.0)
    assert {what["centre"]: what["code"] for what in said} == {"A": CODE, "B": CODE}
    (off,) = [what["clock_off_s"] for what in said if what["centre"] == "B"]
    assert -92 < off < -88 and [what["clock_off_s"] for what in said if what["centre"] == "A"] == [0.0]
