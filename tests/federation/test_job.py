"""The envelope carries what it is given and refuses what must not become a tensor."""

import json

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from federation.job import EnvelopeError, Job, Reply, canonical_json


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
