"""Federations in seconds as they pass: centres that answer from a script on a clock that a test moves, without Flower."""

import json
import math

import numpy as np
import pytest

from federation.wire.centres import Centres
from federation.wire.job import Reply
from federation.wire.real_clock import RealClock
from federation.wire.units import Units
from strategies import fidelity
from strategies.ask import Ask
from strategies.dm_gan.generator import RemoteGenerator
from strategies.dm_gan.local import encode_gradients
from strategies.dm_gan.settings import DmGANSettings
from strategies.members import RoundSettings
from strategies.one_shot import TRAIN, OneGenerator

# What a lost job costs until the server gives up on it.
NOTICE_S = 5.0


class Time:
    """Stands for the module `time`."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


class ScriptedCentres(Centres):
    """Centres that compute so long for a step and are so far away; time passes only while the server waits.

    Args:
        step_s, around_s: seconds of one training step, and of messages both ways, by centre.
        fails: (job, seconds since the start) -> a code, or "" for a good answer.
        skew_s: what the centres' own clocks are ahead, by centre.
    """

    def __init__(self, time, step_s, around_s=0.0, fails=lambda job, at_s: "", skew_s=None):
        self.names = list(step_s)
        self.time, self.step_s, self.fails, self.skew_s = time, step_s, fails, skew_s or {}
        self.around_s = around_s if isinstance(around_s, dict) else dict.fromkeys(step_s, around_s)
        self.began, self.under_way, self.jobs, self.cancelled = time.now, {}, [], {}
        self.progress, self.stop_at, self.sent_s = {}, math.inf, {}

    def send(self, job):
        job.to_record()
        code = self.fails(job, self.time.now - self.began)
        steps = job.body.get("batches", job.body.get("steps", 0))
        computing = steps * self.step_s[job.centre]
        done = self.time.now + (NOTICE_S if code else computing + self.around_s[job.centre] * bool(steps))
        self.under_way[job.unit] = (done, len(self.jobs), job, code, computing)
        self.jobs.append(job)
        if job.kind.startswith("train_"):
            self.sent_s.setdefault(job.centre, []).append(self.time.now - self.began)

    def receive(self, timeout_s=None):
        waiting = sorted(entry[:2] + (unit,) for unit, entry in self.under_way.items())
        if not waiting or (timeout_s is not None and waiting[0][0] > self.time.now + timeout_s):
            assert waiting or timeout_s is not None, "waits for ever"
            self.time.now += timeout_s or 0.0
            return None
        done, _, unit = waiting[0]
        if done - self.began > self.stop_at:
            raise KeyboardInterrupt
        self.time.now = max(self.time.now, done)
        _, _, job, code, computing = self.under_way.pop(unit)
        if code:
            return Reply.error(job, code)
        finished = done - self.around_s[job.centre] / 2 + self.skew_s.get(job.centre, 0.0)
        body, arrays = self.answer(job)
        return Reply(
            job.study,
            unit,
            job.centre,
            job.kind,
            body=body,
            arrays=arrays,
            started=finished - computing,
            finished=finished,
        )

    def answer(self, job):
        introduction = {"data_card": {}, "trained_on": {}, "transport_error": 0.0, "examples": 12}
        if job.kind == "feature_sums":
            images = np.random.default_rng(len(self.jobs)).integers(0, 256, (12, 1, 32, 32)).astype(np.uint8)
            return {"images": 12, "labels": [1]}, fidelity.sums_of_halves(images, np.arange(12) < 6, job.body["spaces"])
        if job.kind == "measure_generator":
            spaces = {name.split(".")[1] for name in job.arrays if name.startswith("reference.")}
            preview = {"preview.pixels": np.zeros((1, 1, 32, 32), np.uint8), "preview.labels": np.ones(1, np.int64)}
            return {"distances": {f"fd_{space}": 1.0 for space in spaces}}, preview if job.body["preview"] else {}
        if job.kind == "train_discriminator":
            return introduction, encode_gradients({"images": np.full_like(job.arrays["fake.generator"], 1e-3)}, "fp32")
        return introduction, {"weights." + n.removeprefix("global."): array for n, array in job.arrays.items()}

    def cancel(self, units):
        for unit in units:
            self.cancelled.setdefault(unit, self.time.now - self.began)
            self.under_way.pop(unit, None)

    def save_progress(self, key, info, arrays):
        self.progress[key] = (json.loads(json.dumps(info)), {name: np.array(array) for name, array in arrays.items()})

    def load_progress(self, key):
        return self.progress.get(key)

    def training(self, centre):
        return [job for job in self.jobs if job.centre == centre and job.kind.startswith("train_")]


@pytest.fixture
def time(monkeypatch):
    time = Time()
    monkeypatch.setattr("federation.wire.real_clock.time", time)
    monkeypatch.setattr("federation.wire.exchange.time", time)
    return time


def dm_gan(here, share, centres, **settings):
    (shared,) = share(centres, here.dm_gan(here.spec(ema=None), DmGANSettings(**settings), RealClock()))
    return shared


def rounds(here, share, centres, settings):
    (shared,) = share(centres, here.fedavg(here.spec(ema=None), settings, clock=RealClock()))
    return shared


def rows(shared):
    return [(row.number, row.centre, row.outcome, round(row.finished_s, 3)) for row in shared.federations[0].rows]


# -- job sizes -----------------------------------------------------------------------------------------------


def test_each_centre_gets_jobs_of_which_it_computes_four_fifths_of_the_time(lab, share, time):
    """One step of A takes 0.1 s, of B 1 s; messages of both 1 s. B's own clock is far behind, which changes nothing."""
    here = lab(A=12, B=12)
    centres = ScriptedCentres(time, {"A": 0.1, "B": 1.0}, 1.0, skew_s={"B": -5000.0})
    shared = dm_gan(here, share, centres, updates=30, batches_per_job=8, adapt=True)
    assert not shared.problems and shared.federations[0].rounds == 30
    sizes = {name: [job.body["batches"] for job in centres.training(name)] for name in "AB"}
    assert sizes["A"][0] == sizes["B"][0] == 8, "the size that jobs begin with"
    assert sizes["A"] == sorted(sizes["A"]) and sizes["B"] == sorted(sizes["B"], reverse=True)
    assert 36 <= sizes["A"][-1] <= 42 and 4 <= sizes["B"][-1] <= 5
    for name, step_s in (("A", 0.1), ("B", 1.0)):
        computing = sizes[name][-1] * step_s
        assert computing / (computing + 1.0) == pytest.approx(0.8, abs=0.04)
        steps = [job.body["from_step"] for job in centres.training(name)]
        assert steps == np.cumsum([0, *sizes[name][:-1]]).tolist(), "its discriminator goes on where it stood"


def test_job_sizes_stay_where_nothing_is_to_be_adapted(lab, share, time):
    here = lab(A=12, B=12)
    centres = ScriptedCentres(time, {"A": 0.1, "B": 1.0}, 5.0)
    dm_gan(here, share, centres, updates=6, batches_per_job=3)
    assert {job.body["batches"] for name in "AB" for job in centres.training(name)} == {3}


def test_nobody_waits_for_the_slowest_and_staleness_counts_updates(lab, share, time):
    here = lab(A=12, B=12)
    shared = dm_gan(here, share, ScriptedCentres(time, {"A": 1.0, "B": 3.5}), updates=5, batches_per_job=1)
    found = [(r.centre, r.number, round(r.finished_s, 3), r.staleness) for r in shared.federations[0].rows]
    # The images of a job are made while the one before it is computed: it is an update older than it could be.
    assert found == [("A", 0, 1, 0), ("A", 0, 2, 1), ("A", 1, 3, 1), ("B", 0, 3.5, 3), ("A", 2, 4, 2)]


def test_the_next_job_is_sent_before_the_answer_is_worked_in(lab, share, time, monkeypatch):
    """At the server a gradient takes a second, in which nobody's node may stand still."""
    here = lab(A=12, B=12)
    gradients_of = RemoteGenerator.gradients_of

    def slow(*arguments):
        time.now += 1.0
        return gradients_of(*arguments)

    monkeypatch.setattr(RemoteGenerator, "gradients_of", slow)
    centres = ScriptedCentres(time, {"A": 3.0, "B": 3.0})
    shared = dm_gan(here, share, centres, updates=8, batches_per_job=1)
    assert not shared.problems
    # Each of the two computes without a pause: 3 s a job, from the first to the last.
    assert centres.sent_s["A"][:4] == [0.0, 3.0, 6.0, 9.0]


# -- lost nodes and timeouts ---------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["node_unavailable", "client_died"])
def test_a_node_that_is_lost_again_and_again_is_asked_no_more(code, lab, share, time):
    here = lab(A=12, B=12)
    fails = lambda job, at_s: code if job.centre == "B" and at_s > 1.5 else ""  # noqa: E731
    centres = ScriptedCentres(time, {"A": 1.0, "B": 1.0}, fails=fails)
    shared = dm_gan(here, share, centres, updates=40, batches_per_job=1, refusals=3)
    found = shared.federations[0].summary
    assert not shared.problems and list(found.gone) == ["B"] and found.lost == 3
    assert found.gone["B"] == pytest.approx(2 + 3 * NOTICE_S)
    assert [row[2:] for row in rows(shared) if row[1] == "B"][-3:] == [("lost", 2 + n * NOTICE_S) for n in (1, 2, 3)]
    assert shared.generators["arm", "task"].centres == ("A", "B")


def test_a_node_that_comes_back_in_time_is_used_again(lab, share, time):
    here = lab(A=12, B=12)
    fails = lambda job, at_s: "node_unavailable" if job.centre == "B" and 1.5 < at_s < 10 else ""  # noqa: E731
    shared = dm_gan(
        here, share, ScriptedCentres(time, {"A": 1.0, "B": 1.0}, fails=fails), updates=30, batches_per_job=1, refusals=3
    )
    found = shared.federations[0].summary
    assert found.lost == 2 and not found.gone
    assert [row[2] for row in rows(shared) if row[1] == "B"][:6] == ["used"] * 2 + ["lost"] * 2 + ["used"] * 2


@pytest.mark.parametrize("code", ["node_unavailable", "client_died"])
def test_where_all_nodes_are_lost_the_training_ends_with_one_line(code, lab, share, time):
    here = lab(A=12)
    fails = lambda job, at_s: code if at_s > 1.5 else ""  # noqa: E731
    centres = ScriptedCentres(time, {"A": 1.0}, fails=fails)
    shared = dm_gan(here, share, centres, updates=9, batches_per_job=1, refusals=3)
    (problem,) = shared.problems
    assert "no centre answers any more at update 2 of 9 (gone: A from 17 s on)" in problem
    assert shared.federations[0].summary.lost == 3 and not shared.generators


def test_a_quorum_waits_so_long_from_its_first_answer(lab, share, time):
    """B needs 20 s. A alone makes no quorum of two; with its first answer a wait of 4 s begins, in which A answers again."""
    here = lab(A=12, B=12)
    centres = ScriptedCentres(time, {"A": 3.0, "B": 20.0})
    shared = dm_gan(here, share, centres, updates=2, batches_per_job=1, quorum=2, update_timeout_s=4)
    assert [row[1:] for row in rows(shared)] == [("A", "used", 3 * n) for n in (1, 2, 3, 4)]
    centres = ScriptedCentres(time, {"A": 3.0, "B": 20.0})
    shared = dm_gan(here, share, centres, updates=2, batches_per_job=1, quorum=2, update_timeout_s=2)
    # At 3 s, and 2 s later without another: the job that A had been given meanwhile belongs to the next update.
    assert [(row[0], *row[1:]) for row in rows(shared)] == [(0, "A", "used", 3), (0, "A", "used", 6)]
    assert shared.federations[0].rows[1].staleness == 1


def test_a_round_ends_with_the_answers_that_are_there_and_takes_the_late_job_back(lab, share, time):
    here = lab(A=12, B=12)
    centres = ScriptedCentres(time, {"A": 1.0, "B": 60.0})
    shared = rounds(here, share, centres, RoundSettings(2, 2, quorum=1, round_timeout_s=10))
    assert rows(shared) == [(0, "A", "used", 2), (0, "B", "late", 10), (1, "A", "used", 12), (1, "B", "late", 20)]
    late = [centres.cancelled[job.unit] for job in centres.training("B")]
    assert late == [10, 20], "it would keep its node busy in the next round"
    assert shared.federations[0].summary.late == 2


def test_rounds_go_on_without_a_lost_node_and_with_it_when_it_is_back(lab, share, time):
    here = lab(A=12, B=12, C=12)
    fails = lambda job, at_s: "node_unavailable" if job.centre == "C" and 1 < at_s < 6 else ""  # noqa: E731
    shared = rounds(
        here, share, ScriptedCentres(time, {"A": 1.0, "B": 1.0, "C": 1.0}, fails=fails), RoundSettings(4, 2)
    )
    found = shared.federations[0]
    assert [row[2] for row in rows(shared) if row[1] == "C"] == ["used", "lost", "used", "used"]
    assert found.rounds == 4 and found.summary.used == 11 and not found.summary.gone, "it is back"


def test_a_round_asks_a_lost_node_so_often_and_then_fails_with_one_line(lab, share, time):
    here = lab(A=12, B=12)
    fails = lambda job, at_s: "node_unavailable" if job.centre == "B" and at_s > 1 else ""  # noqa: E731
    centres = ScriptedCentres(time, {"A": 1.0, "B": 1.0}, fails=fails)
    shared = rounds(here, share, centres, RoundSettings(4, 2, attempts=3))
    (problem,) = shared.problems
    assert "round 2 had 1 good answers and the quorum is 2; no answer from B" in problem
    assert len(centres.training("B")) == 1 + 3 and len(centres.training("A")) == 2
    assert list(shared.federations[0].summary.gone) == ["B"]


@pytest.mark.parametrize(("code", "asked"), [("node_unavailable", 1), ("client_died", 10)])
def test_a_generator_is_asked_for_again_but_not_of_a_node_that_is_not_there(
    code, asked, lab, share, time, own_data, compute
):
    """By then the node has been waited for; a process that died may live the next time."""
    centres = ScriptedCentres(time, {"B": 1.0}, fails=lambda job, at_s: code)
    fixed = own_data | {"generator": lab(B=12).spec(steps=5), "name": "b_gan", "seed": 1, "compute": compute}
    ask = Ask(TRAIN, "one_shot", "B", "task", fixed)
    units = Units("study", "", {("B", "task"): "data"}, {"B": "platform"})
    (shared,) = share(centres, OneGenerator(units, RealClock(), ask, "b_gan"))
    assert shared.problems == ["centre 'B' was lost while it trained b_gan"] and len(centres.jobs) == asked


# -- restart -------------------------------------------------------------------------------------------------


def test_a_training_that_was_ended_goes_on_at_its_second_and_with_its_job_sizes(lab, share, time):
    here = lab(A=12, B=12)
    centres = ScriptedCentres(time, {"A": 0.1, "B": 1.0}, 1.0)
    settings = {"updates": 20, "batches_per_job": 8, "adapt": True}
    centres.stop_at = 12.0
    with pytest.raises(KeyboardInterrupt):
        dm_gan(here, share, centres, **settings)
    ((info, _),) = centres.progress.values()
    assert 0 < info["update"] < 20 and 6 < info["clock"]["now"] <= 12
    first, time.now = len(centres.jobs), time.now + 3600  # an hour later
    centres.under_way, centres.stop_at = {}, math.inf
    shared = dm_gan(here, share, centres, **settings)
    found = shared.federations[0]
    assert found.rounds == 20 and found.summary.used == 20
    times = [row.finished_s for row in found.rows]
    assert times == sorted(times) and times[-1] < 60, "the hour is not counted"
    for name in "AB":
        again = next(job for job in centres.jobs[first:] if job.centre == name and job.kind == "train_discriminator")
        assert again.body["batches"] == info["centres"][name]["batches"] != 8
        assert again.expects_state == info["centres"][name]["version"]
        assert again.unit in {job.unit for job in centres.jobs[:first]}, "what was under way is sent again as it was"
