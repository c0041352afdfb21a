"""Nothing leaves a deployed node that is not declared with what it tells about patients."""

import numpy as np
import pytest

from clients import app, policy
from clients.node import Node, Refusal
from clients.outgoing import ARRAYS, BODY, fields_of, undeclared
from federation.wire.job import IDENTIFY, Job, Reply


def test_every_duty_of_a_deployed_node_has_its_fields_declared():
    assert set(BODY) == (set(app.DUTIES) - policy.REAL_PATCHES) | {IDENTIFY}
    assert set(ARRAYS) < set(BODY)
    for kind in BODY:
        names = [field.name for field in fields_of(kind)]
        assert len(names) == len(set(names))
        assert all(field.tells and field.type for field in fields_of(kind))


def reply_of(kind, body=None, **arrays):
    return Reply("s", "u", "B", kind, body=body or {}, arrays={n.replace("__", "."): a for n, a in arrays.items()})


@pytest.mark.parametrize(
    ("reply", "field"),
    [
        (reply_of("train_generator", {"history": {"step": [1]}, "data_card": {"boxes": {"a.b": 1}}}, weights__x__y=np.ones(1)), ""),
        (reply_of("train_generator", {}, pixels=np.ones(1)), "pixels"),
        (reply_of("train_generator", {}, real__pixels=np.ones(1)), "real.pixels"),
        (reply_of("train_generator", {"patients": ["Doe"]}), "patients"),
        (reply_of("survey", {"tasks": {"lesion": {"card": {}, "names": ["Doe"]}}}), "tasks.lesion.names"),
        (reply_of("survey", {"tasks": {"lesion": {"card": {"x": {"y": 1}}}}, "precision": {"generator/a/b": "fp32"}}), ""),
        (reply_of("survey", {"tasks": {}}), "tasks"),
        (reply_of("test", {"metrics": {"auroc": 1.0}}, weights__a=np.ones(1)), "weights.a"),
        (reply_of("feature_sums", {"images": 9}, texture__first__sum=np.ones(1)), ""),
        (reply_of("feature_sums", {"images": 9}, texture__first__pixels=np.ones(1)), "texture.first.pixels"),
        (reply_of("send_patches", {"counts": {"0": 1}}), "counts.0"),
    ],
)  # fmt: skip
def test_what_is_not_declared_is_found(reply, field):
    assert undeclared(reply) == field


def test_an_undeclared_field_is_refused_by_a_deployed_node_and_not_in_a_simulation(tmp_path):
    job, reply = Job("s", "u", "B", "survey", {}), reply_of("survey", {"names": ["Doe"]})
    with pytest.raises(Refusal) as refusal:
        policy.release(Node("B", tmp_path, tmp_path, deployed=True), job, reply)
    assert (refusal.value.code, refusal.value.numbers) == ("undeclared_field", {"kind": "survey", "field": "names"})
    assert policy.release(Node("B", tmp_path, tmp_path), job, reply) is reply


def test_what_is_empty_is_covered_by_what_may_be_in_it():
    assert undeclared(reply_of("measure_generator", {"distances": {}})) == ""
    assert undeclared(reply_of("measure_generator", {"names": {}})) == "names"
