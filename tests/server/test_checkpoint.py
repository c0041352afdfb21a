"""What the server takes of an answer: a centre may run other code, be wrong, or lie."""

from dataclasses import replace

import numpy as np
import pytest

from federation.wire.errors import TEXTS, explain
from federation.wire.job import Job, Reply
from metrics import METRICS
from scenarios.plan import Plan
from server.checkpoint import checked
from strategies import KINDS

SURVEY = {
    "tasks": {"lesion": {"card": {}, "digest": "ab", "classes": [], "partition": [], "notes": [], "seconds": 1.0}},
    "platform": "p", "device": "cpu", "precision": {"classifier/cnn/lesion": "fp32"},
}  # fmt: skip


@pytest.fixture(scope="module")
def job(tiny):
    """Function: a job of a kind, as the server sends it."""
    asks = {ask.kind.name: ask for ask in Plan(tiny()).asks()}
    return lambda kind: Job(
        "s", "u", asks[kind].centre, kind, asks[kind].filled(**dict.fromkeys(asks[kind].free, ""), **asks[kind].example)
    )


def answer(job, body, **arrays):
    reply = Reply(
        "s", "u", job.centre, job.kind, body=body, arrays={n.replace("__", "."): a for n, a in arrays.items()}
    )
    found = checked(job, reply)
    assert found is reply or (found.body, found.arrays) == ({}, {}), "nothing of it is handed on"
    if not found.ok:
        assert found.code in TEXTS and "?" not in explain(found.centre, found.code, "the job", found.numbers)
    return found.code, found.numbers.get("field") or found.numbers.get("name")


def test_an_answer_as_declared_is_handed_on_as_it_is(job):
    assert answer(job("survey_data"), SURVEY) == ("ok", None)
    assert answer(job("test_classifier"), {"metrics": dict.fromkeys(METRICS, 0.5)}) == ("ok", None), (
        "predictions may stay"
    )


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"precision": {"classifier/cnn/lesion": "fp8"}}, "precision.classifier/cnn/lesion"),
        ({"precision": ["x"]}, "precision"),
        ({"device": 3}, "device"),
        ({"tasks": {"lesion": {"digest": "ab", "classes": [], "partition": []}}}, "tasks.lesion.notes"),
        ({"patients": ["Doe"]}, "patients"),
    ],
)
def test_a_survey_that_cannot_be_used_is_refused_before_anything_of_it_is_written(change, field, job):
    assert answer(job("survey_data"), SURVEY | change) == ("bad_answer", field)


def test_a_field_that_every_answer_has_may_not_be_missing(job):
    assert answer(job("test_classifier"), {}) == ("bad_answer", "metrics")
    assert answer(job("test_classifier"), {"metrics": {"auroc": 0.5}}) == ("bad_answer", "metrics")
    asked = replace(job("test_classifier"), body=job("test_classifier").body | {"metrics": ["brier"]})
    own = dict.fromkeys(METRICS.builtin, 0.5)
    assert answer(asked, {"metrics": own}) == ("bad_answer", "metrics"), "the study asked for one more, of a plug-in"
    assert answer(asked, {"metrics": own | {"brier": 0.1}}) == ("ok", None)
    assert KINDS["synthesise"].missing({"counts": {}}) == "" and KINDS["synthesise"].missing({}) == "counts.*"


def test_arrays_that_nobody_asked_for_are_refused(job):
    assert answer(job("survey_data"), SURVEY, pixels=np.zeros(3, np.uint8)) == ("wrong_arrays", "pixels")
    body = {"counts": {"0": 0, "1": 8}}
    assert answer(job("synthesise"), body, weights__x=np.zeros(1, np.float32)) == ("wrong_arrays", "weights.x")
