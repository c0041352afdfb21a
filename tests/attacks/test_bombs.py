"""Small messages that would take much memory: refused before they do."""

import io
import json
import tracemalloc
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import yaml
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from basics import bounded_text
from basics.bounded_text import SCENARIO, Limits, TooMuch, load_yaml
from clients import flower_supernode
from federation.flower import bundle
from federation.flower.bundle import BundleError, read_bundle
from federation.wire import arrays, job
from federation.wire.arrays import read_array
from federation.wire.errors import EnvelopeError
from federation.wire.job import Job

MIB = 2**20
ALL = Limits(2**40, 2**60, 10_000)


def peak(call, *refusals):
    """MiB at the peak of a call that must end in one of the refusals (or well, where none is given)."""
    tracemalloc.start()
    try:
        if refusals:
            with pytest.raises(refusals):
                call()
        else:
            call()
        return tracemalloc.get_traced_memory()[1] / MIB
    finally:
        tracemalloc.stop()


def message(text, arrays=None):
    return RecordDict({"envelope": ConfigRecord({"json": text}), "arrays": ArrayRecord(arrays or {})})


def test_an_envelope_of_many_values_is_counted_before_it_is_parsed(monkeypatch):
    text = f'{{"body":{{"a":[{",".join(["{}"] * 900_000)}]}}}}'
    assert peak(lambda: Job.from_record(message(text)), EnvelopeError) < 4 * len(text) / MIB
    record = message(f'{{"body":{{"a":[{",".join(["{}"] * 40_000)}]}}}}')
    monkeypatch.setattr(job, "ENVELOPE", ALL)
    assert peak(lambda: Job.from_record(record), EnvelopeError) > 2, "without the count, from 0.1 MiB"


def test_a_message_is_refused_by_its_size_before_it_is_parsed(monkeypatch):
    record = message(json.dumps({"body": {"a": list(range(300_000))}}))
    monkeypatch.setattr(job, "_parsed", lambda text: pytest.fail("it was parsed"))
    with pytest.raises(EnvelopeError) as problem:
        Job.from_record(record, at_most=MIB)
    assert problem.value.code == "message_too_large"


def test_names_and_numbers_of_arrays_are_looked_at_before_any_is_read(monkeypatch):
    monkeypatch.setattr(job, "read_array", lambda *what: pytest.fail("it was read"))
    for name, code in (("x" * 10_000, "bad_array_name"), ("../x", "bad_array_name")):
        with pytest.raises(EnvelopeError) as problem:
            Job.from_record(message("{}", {name: Array(np.zeros(1))}))
        assert problem.value.code == code and len(str(problem.value)) < 300
    monkeypatch.setattr(arrays, "MAX_ARRAYS", 2)
    with pytest.raises(EnvelopeError) as problem:
        Job.from_record(message("{}", {f"a{i}": Array(np.zeros(1)) for i in range(3)}))
    assert problem.value.code == "too_large"


@pytest.mark.parametrize(
    "header",
    [
        "(0, 10**30)",
        f"(0, {10**30})",
        f"({2**62}, 0, {2**62})",
        "(1,) * 99",
        f"({'1, ' * 70})",
        "-" * 900 + "1",
        "(" * 900,
    ],
)
def test_an_impossible_shape_is_refused_as_such(header):
    described = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {header}, }}\n".encode()
    data = b"\x93NUMPY\x01\x00" + len(described).to_bytes(2, "little") + described
    for carried in (data, data + b"\0" * 4):
        with pytest.raises(EnvelopeError):
            read_array("x", Array("float32", (1,), "numpy.ndarray", carried))


def bomb(levels=8):
    lines = ["a0: &a0 [" + ",".join("x" * 9) + "]"]
    return "\n".join(lines + [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]" for i in range(1, levels)])


def test_aliases_are_counted_before_they_repeat_anything(monkeypatch):
    assert len(bomb()) < 400
    assert peak(lambda: load_yaml(bomb(), SCENARIO), TooMuch) < 2
    # Without the count it is read in no memory at all; what is made of it then is not.
    monkeypatch.setattr(bounded_text, "_check_events", lambda text, limits: None)
    tree = load_yaml(bomb(5), SCENARIO)
    assert len(json.dumps(tree)) > 100 * len(bomb(5))


def test_a_flat_text_of_many_values_is_counted_before_any_is_made(monkeypatch):
    text = "[" + "[]," * 40_000 + "]"
    small = replace(SCENARIO, values=10_000)
    assert peak(lambda: load_yaml(text, small), TooMuch) < 2
    monkeypatch.setattr(bounded_text, "_check_events", lambda text, limits: None)
    assert peak(lambda: load_yaml(text, small)) > 4, "without the defence"


def zipped(name, content, method=zipfile.ZIP_DEFLATED):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as file:
        file.writestr(name, content)
    return out.getvalue()


def test_a_bundle_is_not_unpacked_for_its_settings(monkeypatch):
    """Flower reads pyproject.toml of every bundle, in the process of the node itself."""
    content = zipped("pyproject.toml", b"#" * (80 * MIB))
    assert len(content) < MIB
    assert peak(lambda: flower_supernode.get_fused_config_from_fab(content, None)) < 5
    monkeypatch.setattr(flower_supernode, "read_bundle", lambda content: {"pyproject.toml": b""})
    assert peak(lambda: flower_supernode.get_fused_config_from_fab(content, None)) > 80, "without the defence"


def test_a_bundles_directory_is_sized_before_it_is_opened(monkeypatch):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for number in range(20_001):
            file.writestr(zipfile.ZipInfo(f"{number}"), b"")
    content = out.getvalue()
    assert peak(lambda: read_bundle(content), BundleError) < 5
    monkeypatch.setattr(bundle, "check_sizes", lambda content: None)
    assert peak(lambda: read_bundle(content)) > 10, "without the defence"


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_a_bundle_packed_by_a_method_that_takes_much_memory_is_refused(method):
    with pytest.raises(BundleError, match="packed in a way"):
        read_bundle(zipped("a.py", b"1", method))


def test_the_own_bundle_is_far_below_the_limits():
    own = bundle.own_bundle(bundle.own_checkout())
    assert sum(map(len, own.values())) < bundle._MAX_FILE / 10 and len(own) < bundle._MAX_FILES / 10


def test_what_a_thousand_centres_need_is_far_below_the_limits():
    from scenarios.reader import read, resolved_yaml

    text = resolved_yaml(read("many_centres", ["centres.c.count=999"]))
    found = sum(isinstance(event, yaml.NodeEvent) for event in yaml.parse(text, Loader=bounded_text._LOADER))
    assert len(text) < SCENARIO.size / 10 and found < SCENARIO.values / 10
