"""The envelope carries what it is given and refuses what must not become a tensor."""

import json
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from federation.wire import job as job_module
from federation.wire.errors import EnvelopeError
from federation.wire.job import Job, Reply, canonical_json


def a_job(**changes):
    fields = {"study": "s", "unit": "u", "centre": "A", "kind": "learn", "body": {"x": 1}} | changes
    return Job(**fields)


@given(
    array=hnp.arrays(
        dtype=st.sampled_from([np.float32, np.uint8, np.int64, np.float16, np.bool_]),
        shape=hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
        elements={"allow_nan": False, "allow_infinity": False} | {},
    )
)
def test_arrays_survive_the_wire_bit_for_bit(array):
    job = Job.from_record(a_job(arrays={"a.b": array}).to_record())
    assert job.arrays["a.b"].dtype == array.dtype
    assert job.arrays["a.b"].shape == array.shape
    assert job.arrays["a.b"].tobytes() == array.tobytes()


def test_reply_counts_the_bytes_of_its_payload():
    job = a_job(arrays={"w": np.zeros(10, np.float32)})
    reply = Reply("s", "u", "A", "learn", body={"y": 2}, arrays={"z": np.zeros((3, 5), np.uint8)})
    read = Reply.from_record(reply.to_record(), job)
    assert read.bytes_up == 15 + len('{"y":2}')
    assert read.bytes_down == 40 + len('{"x":1}')


@pytest.mark.parametrize(
    ("arrays", "code"),
    [
        ({"../x": np.zeros(1)}, "bad_array_name"),
        ({"/etc/passwd": np.zeros(1)}, "bad_array_name"),
        ({"a..b": np.zeros(1)}, "bad_array_name"),
        ({"x": np.array([np.nan], np.float32)}, "not_finite"),
        ({"x": np.array([np.inf])}, "not_finite"),
        ({"x": np.zeros(1, np.complex64)}, "bad_dtype"),
    ],
)
def test_what_must_not_become_a_tensor_is_refused(arrays, code):
    with pytest.raises(EnvelopeError) as problem:
        a_job(arrays=arrays).to_record()
    assert problem.value.code == code


def test_refusals_hold_on_the_receiving_side_too():
    """A sender that does not check: the envelope is written by hand."""
    good = json.loads(str(a_job().to_record().config_records["envelope"]["json"]))

    def read(arrays, **changes):
        record = RecordDict(
            {
                "envelope": ConfigRecord({"json": json.dumps(good | changes)}),
                "arrays": ArrayRecord({k: Array(v) for k, v in arrays.items()}),
            }
        )
        return Job.from_record(record)

    for arrays, changes, code in [
        ({"x": np.array([np.nan])}, {"array_bytes": 8}, "not_finite"),
        ({"x": np.zeros(2)}, {"array_bytes": 8}, "size_mismatch"),
        ({"x": np.zeros(1)}, {"array_bytes": 10**12}, "too_large"),
        ({"x": np.zeros(1)}, {"array_bytes": "8"}, "too_large"),
        ({}, {"protocol": 99}, "protocol_mismatch"),
        ({"x/../y": np.zeros(1)}, {"array_bytes": 8}, "bad_array_name"),
    ]:
        with pytest.raises(EnvelopeError) as problem:
            read(arrays, **changes)
        assert problem.value.code == code
    with pytest.raises(EnvelopeError, match="not a polycentre message"):
        Job.from_record(RecordDict({}))


@pytest.mark.parametrize("field", ["study", "unit", "centre", "kind"])
def test_a_reply_to_another_job_is_refused(field):
    reply = Reply(**{"study": "s", "unit": "u", "centre": "A", "kind": "learn"} | {field: "other"})
    with pytest.raises(EnvelopeError) as problem:
        Reply.from_record(reply.to_record(), a_job())
    assert problem.value.code == "foreign_reply"


@pytest.mark.parametrize("field", ["study", "unit", "centre", "kind"])
@pytest.mark.parametrize("name", ["../../etc", "/abs", "a/b", "", "x" * 65])
def test_a_path_in_a_name_is_refused(field, name):
    with pytest.raises(EnvelopeError) as problem:
        Job.from_record(a_job(**{field: name}).to_record())
    assert problem.value.code == "bad_name"


def test_the_code_of_a_centre_that_could_not_read_the_job_is_kept():
    assert (
        Reply.from_record(Reply("", "", "", "", code="protocol_mismatch").to_record(), a_job()).code
        == "protocol_mismatch"
    )


def test_canonical_json_has_one_spelling():
    assert canonical_json({"b": 1, "a": [1, 2]}) == canonical_json(dict([("a", [1, 2]), ("b", 1)]))
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"x": float("nan")})


# -- answers of a centre that lies: written by hand, past the checks that a sender makes ----------------------------

ZEROS = np.zeros(4, np.float32)


def reply_with(arrays=None, text=None, **changes):
    record = Reply("s", "u", "A", "learn").to_record()
    envelope = json.loads(str(record.config_records["envelope"]["json"])) | changes
    arrays = {name: array if isinstance(array, Array) else Array(array) for name, array in (arrays or {}).items()}
    return RecordDict({
        "envelope": ConfigRecord({"json": json.dumps(envelope) if text is None else text(json.dumps(envelope))}),
        "arrays": ArrayRecord(arrays),
    })  # fmt: skip


def lying(old, new, **attributes):
    """An array whose own header differs from its bytes."""
    array = Array(ZEROS)
    assert old in array.data
    array.data = array.data.replace(old, new)
    for name, value in attributes.items():
        setattr(array, name, value)
    return array


SHAPE = b"(4,), }             "


@pytest.mark.parametrize(
    ("record", "code"),
    [
        (reply_with(body=[]), "malformed"),
        (reply_with(numbers=[1]), "malformed"),
        (reply_with(code=0), "malformed"),
        (reply_with(started="now"), "malformed"),
        (reply_with(text=lambda good: good[:-1]), "malformed"),
        (reply_with(text=lambda good: "[" * 100_000), "too_large"),
        (reply_with(body={"metrics": {"auroc": float("nan")}}), "malformed"),
        (reply_with(text=lambda good: good.replace('"body": {}', '"body": {"m": 1e999}')), "malformed"),
        (reply_with(numbers={"have": float("inf")}), "malformed"),
        (reply_with(started=float("nan")), "malformed"),
        (reply_with(worker="\ud800"), "malformed"),
        (reply_with(body={"examples": 2**63}), "malformed"),
        (reply_with(array_bytes=10**12), "too_large"),
        (reply_with({"weights.x": ZEROS}, array_bytes=8), "size_mismatch"),
        (reply_with({"weights.x": ZEROS}, array_bytes=-16), "size_mismatch"),
        (reply_with({"../x": ZEROS}, array_bytes=16), "bad_array_name"),
        (reply_with({"weights./etc/x": ZEROS}, array_bytes=16), "bad_array_name"),
        (reply_with({"weights.x": ZEROS * np.nan}, array_bytes=16), "not_finite"),
        (reply_with({"weights.x": ZEROS + np.inf}, array_bytes=16), "not_finite"),
        (reply_with({"weights.x": np.zeros(2, np.complex64)}, array_bytes=16), "bad_dtype"),
        (reply_with({"weights.x": lying(b"<f4", b"|O8")}, array_bytes=16), "bad_dtype"),
        (reply_with({"weights.x": lying(b"(4,)", b"(9,)")}, array_bytes=36), "size_mismatch"),
        (reply_with({"weights.x": lying(b"(4,)", b"(-4)")}, array_bytes=16), "malformed"),
        (reply_with({"weights.x": lying(b"NUMPY", b"PICKL")}, array_bytes=16), "malformed"),
        (reply_with({"weights.x": lying(b"(4,)", b"(4,)", dtype="object")}, array_bytes=16), "bad_dtype"),
    ],
)  # fmt: skip
def test_a_malicious_answer_is_refused_by_its_code(record, code):
    with pytest.raises(EnvelopeError) as problem:
        Reply.from_record(record, a_job())
    assert problem.value.code == code


def test_what_a_header_says_is_not_allocated(monkeypatch):
    monkeypatch.setattr(Array, "numpy", lambda self: pytest.fail("numpy was asked for a terabyte"))
    record = reply_with({"weights.x": lying(SHAPE, b"(999999999999,), }  ")}, array_bytes=16)
    with pytest.raises(EnvelopeError) as problem:
        Reply.from_record(record, a_job())
    assert problem.value.code == "size_mismatch"


def test_an_answer_with_an_endless_envelope_is_refused_before_it_is_parsed(monkeypatch):
    monkeypatch.setattr(job_module, "ENVELOPE", replace(job_module.ENVELOPE, size=1000))
    monkeypatch.setattr(job_module, "_parsed", lambda text: pytest.fail("it was parsed"))
    with pytest.raises(EnvelopeError) as problem:
        Reply.from_record(reply_with(body={"x": "y" * 1000}), a_job())
    assert problem.value.code == "too_large"


def test_numbers_at_the_edges_still_travel():
    edges = {"whole": [2**63 - 1, -(2**63)], "real": [1e308, 5e-324, -0.0], "text": "µ — 中 \U0001f600"}
    assert Reply.from_record(reply_with(body=edges), a_job()).body == edges
