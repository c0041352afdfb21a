"""Rounds with faults: who is waited for, who is passed over, what is refused, and how a federation gives up."""

import math
from dataclasses import replace

import numpy as np
import pytest

from federation.wire.availability import Availability
from federation.wire.transport import decode
from strategies.fedavg_gan.local import LocalRules
from strategies.members import RoundSettings

GONE_AT_5 = Availability(outages=((5, math.inf),))


def run(here, share, settings, clock=None, centres=None, **more):
    spec = here.spec("dcgan", ema=None)
    centres = centres or here.centres()
    (shared,) = share(centres, here.fedavg(spec, settings, clock=clock or here.clock(), **more))
    return shared, centres


def summary(shared):
    assert not shared.problems, shared.problems
    return shared.federations[0].summary


def outcomes(shared):
    return [(row.number, row.centre, row.outcome) for row in shared.federations[0].rows]


def weights(shared):
    return shared.generators["arm", "task"].weights


# -- faults of the clock -------------------------------------------------------------------------------------


def test_a_round_ends_with_the_answers_that_are_there_when_its_time_is_up(lab, share, same_arrays):
    here = lab(A=12, B=12, C=12)
    slow = here.clock({"C": Availability(speed=0.1)})
    shared, centres = run(here, share, RoundSettings(2, 2, quorum=2, round_timeout_s=10), slow)
    assert summary(shared).late == 2
    assert outcomes(shared) == [(n, c, o) for n in (0, 1) for c, o in (("A", "used"), ("B", "used"), ("C", "late"))]
    assert {job.centre for job in centres.sent("train_round")} == {"A", "B"}, "what comes too late is not computed"
    assert slow.now == 20
    # The same as a federation that C never was in, up to its own streams.
    assert [member for member in shared.generators["arm", "task"].centres] == ["A", "B", "C"]


def test_a_round_without_a_quorum_goes_on_only_until_there_is_one(lab, share):
    here = lab(A=12, B=12, C=12)
    clock = here.clock({"B": Availability(speed=0.1), "C": Availability(speed=0.01)})
    shared, _ = run(here, share, RoundSettings(1, 2, quorum=2, round_timeout_s=10), clock)
    assert outcomes(shared) == [(0, "A", "used"), (0, "B", "used"), (0, "C", "late")]
    assert clock.now == 20, "C would answer after 200 s"


def test_lost_jobs_are_sent_again_until_there_is_a_quorum(lab, share):
    here = lab(A=12, B=12)
    shared, centres = run(here, share, RoundSettings(4, 1, quorum=2), here.clock({"B": Availability(dropout=0.3)}))
    found = summary(shared)
    assert found.lost > 0 and found.used == 8 and found.jobs == 8 + found.lost
    assert len(centres.sent("train_round")) == 8
    assert {row.outcome for row in shared.federations[0].rows} == {"used", "lost"}


def test_a_centre_that_goes_for_good_is_passed_over(lab, share):
    here = lab(A=12, B=12, C=12)
    shared, centres = run(here, share, RoundSettings(5, 2), here.clock({"C": GONE_AT_5}))
    found = summary(shared)
    assert list(found.gone) == ["C"] and shared.federations[0].rounds == 5
    assert [c for _, c, o in outcomes(shared) if o == "outage"] == ["C"], "it is asked once more and then no longer"
    assert found.used == 5 + 5 + 2


def test_the_default_quorum_is_more_than_half_of_those_that_are_left(lab, share):
    here = lab(A=12, B=12)
    shared, _ = run(here, share, RoundSettings(4, 2), here.clock({"B": GONE_AT_5}))
    assert summary(shared).used == 4 + 2


def test_a_quorum_that_was_asked_for_is_not_lowered(lab, share):
    here = lab(A=12, B=12)
    shared, _ = run(here, share, RoundSettings(4, 2, quorum=2), here.clock({"B": GONE_AT_5}))
    (problem,) = shared.problems
    assert problem == (
        "arm: round 3 had 1 good answers and the quorum is 2; no answer from B; bring them back and resume, or lower quorum"
    )
    assert not shared.generators


def test_a_robust_aggregation_is_not_given_too_few_answers(lab, share):
    here = lab(A=12, B=12, C=12)
    shared, _ = run(here, share, RoundSettings(4, 2), here.clock({"C": GONE_AT_5}), aggregation="Krum")
    (problem,) = shared.problems
    assert "round 3 had 2 good answers and the quorum is 3" in problem


def test_cyclic_passes_over_who_goes_in_its_own_turn(lab, share):
    here = lab(A=12, B=12, C=12)
    # Turns of 2 s: A 0-2, B 2-4, C 4-6; C goes at 5, in the middle.
    shared, centres = run(here, share, RoundSettings(6, 2), here.clock({"C": GONE_AT_5}), turns="cyclic")
    assert outcomes(shared)[:4] == [(0, "A", "used"), (1, "B", "used"), (2, "C", "outage"), (2, "A", "used")]
    assert summary(shared).used == 6
    assert [job.centre for job in centres.sent("train_round")] == ["A", "B", "A", "B", "A", "B"]


def test_when_all_are_gone_the_federation_fails_and_says_who_is_missing(lab, share):
    here = lab(A=12, B=12)
    shared, _ = run(here, share, RoundSettings(9, 2), here.clock({"A": GONE_AT_5, "B": GONE_AT_5}))
    assert "round 3 had 0 good answers" in shared.problems[0] and "no answer from A, B" in shared.problems[0]


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
def test_weights_that_are_not_finite_end_the_federation_and_not_the_run(lab, share):
    here = lab(A=12, B=12)
    shared, _ = run(here, share, RoundSettings(2, 1), aggregation="FedAvgM", options={"server_learning_rate": 1e43})
    assert shared.problems == ["arm: the weights of round 1 are not finite; lower learning_rate or aggregation_options"]


@pytest.mark.filterwarnings("ignore:overflow")
def test_weights_that_the_transport_cannot_carry_end_the_federation_and_not_the_run(lab, share):
    here = lab(A=12, B=12)
    options = {"server_learning_rate": 1e9}
    shared, _ = run(here, share, RoundSettings(2, 1, transport="fp16"), aggregation="FedAvgM", options=options)
    (problem,) = shared.problems
    assert problem.startswith("arm: after round 1: array 'networks.") and "float16 cannot carry" in problem


# -- answers that cannot be used -----------------------------------------------------------------------------


def broken(what, reply):
    first = next(name for name in reply.arrays if name.startswith("weights.") and reply.arrays[name].ndim > 1)
    arrays = dict(reply.arrays)
    if what == "shape":
        arrays[first] = arrays[first][:1]
    elif what == "name":
        arrays["weights.more"] = arrays[first]
    elif what == "missing":
        del arrays[first]
    elif what == "nan":
        arrays[first] = np.full_like(arrays[first], np.nan)
    elif what == "scales":
        arrays[first + ".int8_scale"] = np.ones(1, np.float32)
    elif what == "huge":  # finite as it travels, and infinite once it is decoded
        arrays[first] = np.full_like(arrays[first], 127)
        arrays[first + ".int8_scale"] = np.full_like(arrays[first + ".int8_scale"], 3e38)
    elif what == "no scales":
        arrays = {n: a for n, a in arrays.items() if not n.endswith(".int8_scale")}
    changes = {
        "unit": {"unit": "another"}, "study": {"study": "another"}, "code": {"code": "diverged", "arrays": {}},
        "examples": {"body": reply.body | {"examples": -3}}, "text": {"body": reply.body | {"examples": "many"}},
        "no body": {"body": {}},
        "no card": {"body": {k: v for k, v in reply.body.items() if k != "data_card"}},
    }  # fmt: skip
    return replace(reply, **({"arrays": arrays} | changes.get(what, {})))


@pytest.mark.parametrize(
    ("what", "code", "transport"),
    [
        ("shape", "wrong_arrays", "fp32"), ("name", "wrong_arrays", "fp32"), ("missing", "wrong_arrays", "fp32"),
        ("nan", "not_finite", "fp32"), ("scales", "wrong_arrays", "int8"), ("no scales", "wrong_arrays", "int8"),
        ("unit", "foreign_reply", "fp32"), ("study", "foreign_reply", "fp32"), ("code", "diverged", "fp32"),
        ("examples", "bad_body", "fp32"), ("text", "bad_body", "fp32"), ("no body", "bad_answer", "fp32"),
        ("huge", "not_finite", "int8"), ("no card", "bad_body", "fp32"),
    ],
)  # fmt: skip
def test_a_bad_answer_is_refused_counted_and_never_averaged(what, code, transport, lab, share, same_arrays):
    here = lab(A=12, B=12)

    def spoil(job, reply):
        return broken(what, reply) if job.kind == "train_round" and job.centre == "B" else None

    centres = here.centres(spoil=spoil)
    shared, _ = run(here, share, RoundSettings(1, 1, quorum=1, transport=transport), centres=centres)
    assert summary(shared).refused == {f"B: {code}": 1} and summary(shared).used == 1
    assert outcomes(shared) == [(0, "A", "used"), (0, "B", "refused")]
    (alone,) = [r for r in centres.replies if r.kind == "train_round" and r.centre == "A"]
    alone = decode({n.removeprefix("weights."): a for n, a in alone.arrays.items()}, transport)
    ((_, arrays),) = centres.progress.values()
    same_arrays({n.removeprefix("global."): a for n, a in arrays.items() if n.startswith("global.")}, alone)


def test_an_answer_that_was_bad_once_does_not_shut_the_centre_out(lab, share):
    here = lab(A=12, B=12)
    bad = []

    def spoil(job, reply):
        if job.kind == "train_round" and job.centre == "B" and not bad:
            bad.append(job.unit)
            return broken("shape", reply)
        return None

    shared, _ = run(here, share, RoundSettings(2, 1), centres=here.centres(spoil=spoil))
    assert summary(shared).refused == {"B: wrong_arrays": 1} and summary(shared).used == 4


# -- states --------------------------------------------------------------------------------------------------


def test_a_centre_that_comes_back_with_an_empty_state_begins_anew(lab, share):
    import shutil

    here = lab(A=12, B=12)
    centres = here.centres()
    folder = here.folder / "run" / "centres" / "B" / "states"

    def wipe(job, reply):
        if job.kind == "train_round" and job.centre == "B" and job.body["round"] == 1:
            shutil.rmtree(folder)
        return None

    centres.spoil = wipe
    shared, _ = run(here, share, RoundSettings(4, 2), centres=centres, rules=LocalRules())
    assert summary(shared).state_lost == [("B", 2)] and summary(shared).used == 8
    rounds = [
        (j.body["round"], j.expects_state, j.body["fresh"]) for j in centres.sent("train_round") if j.centre == "B"
    ]
    assert rounds == [(0, 0, 0), (1, 1, 0), (2, 2, 0), (2, 0, 3), (3, 1, 3)]


@pytest.mark.parametrize(("stop_after", "aggregation"), [(3, "FedAvg"), (6, "FedAvg"), (4, "FedAdam"), (9, "FedAdam")])
def test_a_server_that_was_killed_goes_on_to_the_same_weights(stop_after, aggregation, lab, share, same_arrays):
    """Here without the records of finished jobs: what centres kept answers what is asked again."""
    here = lab(A=12, B=12)
    settings = RoundSettings(4, 1)
    clock = {"B": Availability(dropout=0.3, delay_s=1)}
    whole, _ = run(here, share, settings, here.clock(clock), here.centres("whole"), aggregation=aggregation)
    centres = here.centres("killed", stop_after=stop_after)
    with pytest.raises(KeyboardInterrupt):
        run(here, share, settings, here.clock(clock), centres, aggregation=aggregation)
    centres.stop_after, centres.queue = None, []
    resumed, _ = run(here, share, settings, here.clock(clock), centres, aggregation=aggregation)
    same_arrays(weights(resumed), weights(whole))
    assert resumed.federations[0] == whole.federations[0]
    assert resumed.generators["arm", "task"].unit == whole.generators["arm", "task"].unit
