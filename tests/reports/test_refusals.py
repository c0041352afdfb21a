"""A refusal is said as one, once for each reason, and never as a failure."""

import pytest

from federation.wire.errors import REFUSAL_CODES, TEXTS, explain
from reports.refusals import real_failures, refusals


def failed(code, centre="B", label="train b_gan", **numbers):
    return {"t": 5.0, "event": "unit_failed", "unit": label, "kind": "train_generator", "centre": centre, "label": label,
            "code": code, "text": explain(centre, code, label, numbers)}  # fmt: skip


def of(*events):
    return [{"t": 0.0, "event": "run_started"}, *events]


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (failed("policy", rule="strategies"), "centre B refused train b_gan by its own policy (strategies)"),
        (failed("foreign_study"), "centre B refused train b_gan: it does not take part in this study"),
        (failed("code_mismatch", ours="1a", theirs="2b"),
         "centre B refused train b_gan: it runs other code (digest 2b) than the server (1a); update one of them"),
    ],
)  # fmt: skip
def test_who_refused_what_and_why(event, expected):
    assert refusals(of(event)) == [expected] and real_failures(of(event)) == []


@pytest.mark.parametrize("code", sorted(REFUSAL_CODES))
def test_every_code_of_a_refusal_reads_as_one(code):
    (line,) = refusals(of(failed(code)))
    assert line.startswith("centre B refused train b_gan") and "centre 'B'" not in line and "could not" not in line
    assert code in TEXTS or code.replace("_", " ") in line


def test_one_line_for_each_centre_and_reason():
    rounds = [failed("policy", label=f"round {i}", rule="hours") for i in range(12)]
    others = [
        failed("policy", label="round 3", rule="pixels"),
        failed("policy", centre="C", label="round 3", rule="hours"),
    ]
    assert refusals(of(*rounds, *others)) == [
        "centre B refused round 0 and 11 other jobs by its own policy (hours)",
        "centre B refused round 3 by its own policy (pixels)",
        "centre C refused round 3 by its own policy (hours)",
    ]
    assert refusals(of(rounds[0], rounds[0])) == ["centre B refused round 0 by its own policy (hours)"], "asked twice"
    assert refusals(of(*rounds[:2])) == ["centre B refused round 0 and 1 other job by its own policy (hours)"]


def test_what_went_wrong_is_no_refusal_and_what_was_refused_before_is_over():
    events = of(failed("policy", rule="hours"), failed("diverged", step=4))
    assert [e["code"] for e in real_failures(events)] == ["diverged"]
    assert refusals([*events, {"t": 9.0, "event": "run_started"}]) == []
