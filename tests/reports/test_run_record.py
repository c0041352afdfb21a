"""The run folder: whole files only, the same bytes for the same rows, and nothing lost in between."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from basics.atomic_files import write_bytes
from reports.record_files import CONVERGENCE, RESULTS, VIRTUAL_TIME
from reports.run_record import RecordError, RunRecord


@pytest.fixture
def record(tmp_path) -> RunRecord:
    return RunRecord.create(tmp_path / "run", "name: x\nseed: 0\n", {"python": "3.11"})


def result(**changes):
    row = {
        "arm": "none", "strategy": "local", "task": "lesion", "classifier": "cnn", "real_fraction": 1.0, "repeat": 0,
        "tested_on": "A", "metric": "auroc", "value": 0.5, "receiver": "A", "n_real": 100, "n_synthetic": 0,
    }  # fmt: skip
    return row | changes


# -- folder --------------------------------------------------------------------------------------------------------


def test_create_and_open(tmp_path):
    RunRecord.create(tmp_path / "run", "name: ä\n", {"cpu": "x", "cores": np.int64(2)})
    again = RunRecord.open(tmp_path / "run")
    assert again.scenario_yaml == "name: ä\n"
    assert again.environment == {"cpu": "x", "cores": 2}
    assert again.results().empty and again.events() == [] and again.units() == []
    with pytest.raises(RecordError, match="--resume"):
        RunRecord.create(tmp_path / "run", "", {})


def test_open_says_what_a_run_folder_is(tmp_path):
    with pytest.raises(RecordError, match="no scenario.yaml"):
        RunRecord.open(tmp_path)


def test_create_again_after_a_kill_before_the_scenario_was_written(tmp_path):
    (tmp_path / "environment.json").write_text("{}")
    RunRecord.create(tmp_path, "name: x\n", {})


@pytest.mark.parametrize("name", ["../x", "", ".hidden", "a/b", "a\0b", "x" * 200])
def test_names_that_could_leave_the_folder_are_refused(record, name):
    with pytest.raises(RecordError, match="cannot name a file"):
        record.write_unit(name, {})
    with pytest.raises(RecordError, match="cannot name a file"):
        record.local(name)


# -- events --------------------------------------------------------------------------------------------------------


def test_events_in_order(record):
    before = time.time()
    record.event("run_started", run_id="r", resumed=False)
    record.event("note", centre="B", text="line\nend, ü")
    first, second = record.events()
    assert first["event"] == "run_started" and before - 1 <= first["t"] <= time.time() + 1
    assert second["text"] == "line\nend, ü"


@pytest.mark.parametrize("torn", [b'{"t": 1.0, "eve', '{"t": 1.0, "event": "ü'.encode()[:-1], b'{"t": 1', b"12"])
def test_torn_last_line_is_left_out_and_not_continued(record, torn):
    record.event("one")
    with open(record.folder / "events.jsonl", "ab") as file:
        file.write(torn)
    assert [e["event"] for e in record.events()] == ["one"]
    resumed = RunRecord.open(record.folder)
    resumed.event("two")
    resumed.event("three")
    assert [e["event"] for e in resumed.events()] == ["one", "two", "three"]


def forked(work, *arguments) -> int:
    """The process id of a copy of this process that does `work`: it has nothing to import."""
    child = os.fork()
    if child == 0:
        try:
            work(*arguments)
        finally:
            os._exit(0)
    return child


def test_events_of_two_processes_do_not_mix(record):
    waiting, go = os.pipe()

    def write(who):
        own = RunRecord.open(record.folder)
        os.read(waiting, 1)  # both begin at once
        for i in range(2000):
            own.event("x", who=who, text="y" * 500, i=i)

    children = [forked(write, who) for who in "ab"]
    os.write(go, b"go")
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    events = record.events()
    assert len(events) == 4000
    for who in "ab":
        assert [e["i"] for e in events if e["who"] == who] == list(range(2000))


# -- units ---------------------------------------------------------------------------------------------------------


def test_unit_round_trip(record):
    arrays = {
        "uint8": np.arange(24, dtype=np.uint8).reshape(2, 1, 3, 4),
        "transposed": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "scalar": np.float64(2.5) * np.ones(()),
        "empty": np.zeros((0, 3), np.int64),
    }
    info = {"unit": "u1", "kind": "learn", "result": {"loss": [0.1, math.nan], "n": np.int64(3), "v": np.float32(0.5)}}
    record.write_unit("u1", info, arrays)
    read = RunRecord.open(record.folder).read_unit("u1")
    assert read is not None
    got, got_arrays = read
    assert got["kind"] == "learn" and got["result"]["n"] == 3 and got["result"]["v"] == 0.5
    assert got["result"]["loss"][0] == 0.1 and math.isnan(got["result"]["loss"][1])
    assert set(got) == {"unit", "kind", "result"}
    assert got_arrays is not None
    for name, array in arrays.items():
        assert got_arrays[name].dtype == array.dtype and got_arrays[name].shape == array.shape
        np.testing.assert_array_equal(got_arrays[name], array)


def test_unit_without_arrays_and_with_none_in_them(record):
    record.write_unit("a", {"kind": "survey"})
    record.write_unit("b", {"kind": "test"}, {})
    assert record.read_unit("a") == ({"unit": "a", "kind": "survey"}, None)
    assert record.read_unit("b") == ({"unit": "b", "kind": "test"}, {})
    assert [info["unit"] for info in record.units()] == ["a", "b"]
    assert record.read_unit("c") is None


def test_a_unit_whose_arrays_are_not_its_own_does_not_exist(record):
    record.write_unit("a", {}, {"x": np.zeros(4, np.float32)})
    path = record.folder / "units" / "a.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert record.read_unit("a") is None and record.units() == []
    path.unlink()
    assert record.read_unit("a") is None
    record.write_unit("a", {}, {"x": np.ones(4, np.float32)})
    assert record.read_unit("a") is not None


def test_kill_between_arrays_and_info_leaves_no_unit(record, monkeypatch):
    def die(path, *rest, **options):
        if path.suffix == ".json":
            raise KeyboardInterrupt
        write_bytes(path, *rest, **options)

    monkeypatch.setattr("reports.run_record.write_bytes", die)
    with pytest.raises(KeyboardInterrupt):
        record.write_unit("a", {}, {"x": np.zeros(4)})
    assert list((record.folder / "units").iterdir())
    assert record.read_unit("a") is None and record.units() == []


@pytest.mark.parametrize("left", [b"", b'{"unit": "a", "kin', b"\0" * 200, b"{}", b"[]", b'{"unit": "a", "arrays": 3}'])
def test_a_unit_cut_off_by_a_power_cut_is_not_finished(record, left):
    record.write_unit("a", {"kind": "learn"}, {"x": np.zeros(4)})
    (record.folder / "units" / "a.json").write_bytes(left)
    assert record.read_unit("a") is None and record.units() == []


def test_what_stands_for_other_units_is_on_the_disk_at_once(record, monkeypatch):
    """Its arrays, too: without them the unit counts as not finished, and what it stands for is gone."""
    synced = []
    monkeypatch.setattr(
        "basics.atomic_files.os.fsync", lambda file: synced.append(os.readlink(f"/proc/self/fd/{file}"))
    )
    record.write_unit("a", {}, {"x": np.zeros(4)})
    assert not synced
    record.write_unit("b", {}, {"x": np.zeros(4)}, durable=True)
    units = str((record.folder / "units").resolve())
    files = [place.removeprefix(units).partition(f".{os.getpid()}")[0] for place in synced]
    assert files == ["/.b.safetensors", "", "/.b.json", ""], "each file, and then the folder with its name"


def test_foreign_or_reserved_entries_are_refused(record):
    with pytest.raises(RecordError, match="another unit"):
        record.write_unit("a", {"unit": "b"})
    with pytest.raises(RecordError, match="arrays"):
        record.write_unit("a", {"arrays": []})
    with pytest.raises(TypeError, match="set"):
        record.write_unit("a", {"x": {1, 2}})
    assert record.units() == []


def test_sigkill_at_random_moments_leaves_whole_units(record):
    """Every unit whose event was written is there, and every unit that is there is whole."""

    def write(begun):
        own = RunRecord.open(record.folder)
        for i in range(10**6):
            unit = f"u{os.getpid()}-{i}"
            own.write_unit(unit, {"value": i}, {"x": np.full(100_000, i, np.int64)})
            own.event("unit_finished", unit=unit)
            if i == 0:
                os.write(begun, b"!")

    for delay in (0.0, 0.05, 0.12, 0.21):
        read, begun = os.pipe()
        child = forked(write, begun)
        assert os.read(read, 1) == b"!"
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(read)
        os.close(begun)
    assert {e["unit"] for e in record.events()} <= {info["unit"] for info in record.units()}
    for info in record.units():
        read = record.read_unit(info["unit"])
        assert read is not None and read[1] is not None
        assert (read[1]["x"] == read[0]["value"]).all()


# -- results -------------------------------------------------------------------------------------------------------


def test_results_are_the_same_bytes_in_any_order(record, tmp_path):
    rows = [
        result(arm=arm, real_fraction=fraction, repeat=repeat, metric=metric, value=(len(arm) * 31 + repeat) / 97)
        for arm in ("none", "b_flow", 'quoted, "arm"')
        for fraction in (1, 0.5, 0.1)
        for repeat in range(12)
        for metric in ("auroc", "f1")
    ]
    record.write_results(rows)
    expected = (record.folder / "results.csv").read_bytes()
    other = RunRecord.create(tmp_path / "other", "name: y\n", {})
    random.Random(0).shuffle(rows)
    other.write_results(
        {name: np.float64(value) if name in ("value", "real_fraction") else value for name, value in row.items()}
        for row in reversed(rows)
    )
    assert (other.folder / "results.csv").read_bytes() == expected
    assert expected.splitlines()[0].decode() == ",".join(RESULTS.columns)
    assert b"\r" not in expected
    table = record.results()
    assert list(table.columns) == list(RESULTS.columns) and len(table) == len(rows)
    first = table[(table.arm == "none") & (table.metric == "f1") & (table.real_fraction == 1)]
    assert list(first["repeat"]) == list(range(12))  # by number: 2 before 10


@settings(max_examples=25)
@given(
    st.lists(st.floats(allow_nan=True, allow_infinity=False, width=32), max_size=6, unique_by=repr),
    st.randoms(use_true_random=False),
)
def test_order_never_shows(tmp_path_factory, values, rng):
    rows = [result(repeat=i, value=v, n_real=v) for i, v in enumerate(values)]
    texts = []
    for _ in range(2):
        record = RunRecord.create(tmp_path_factory.mktemp("run"), "", {})
        record.write_results(rows)
        texts.append((record.folder / "results.csv").read_bytes())
        rng.shuffle(rows)
    assert texts[0] == texts[1]


def test_what_reads_back(record):
    record.write_results([
        result(tested_on="NA", value=None),
        result(tested_on="None", value=math.nan),
        result(tested_on="nan", value=-0.0),
        result(tested_on="B", value=1 / 3),
    ])  # fmt: skip
    table = record.results().set_index("tested_on")
    assert set(table.index) == {"NA", "None", "nan", "B"}
    assert math.isnan(table.value["NA"]) and math.isnan(table.value["None"])
    assert table.value["nan"] == 0 and table.value["B"] == pytest.approx(1 / 3, abs=1e-10)
    assert "-0" not in (record.folder / "results.csv").read_text()


def test_wrong_columns_and_double_results_are_refused(record):
    with pytest.raises(ValueError, match="colour"):
        record.write_results([result(colour="red")])
    with pytest.raises(RecordError, match="two rows"):
        record.write_results([result(value=0.1), result(value=0.2)])
    assert record.results().empty


def test_predictions(record):
    rows = [
        {"arm": "none", "task": "lesion", "classifier": "cnn", "real_fraction": 1.0, "repeat": 0, "receiver": "A",
         "tested_on": "A", "case": i, "patient": i // 2, "class": "lesion", "label": i % 2, "probability": i / 7}
        for i in reversed(range(11))
    ]  # fmt: skip
    record.write_predictions(rows)
    table = record.predictions()
    assert list(table["case"]) == list(range(11))
    assert table["probability"][3] == pytest.approx(3 / 7, abs=1e-10)


# -- federations ---------------------------------------------------------------------------------------------------


def measured(**changes):
    row = {"arm": "average", "task": "lesion", "series": "federation", "centre": "B", "round": 2, "images_seen": 640,
           "virtual_s": 12.5, "metric": "fd_texture", "value": 3.25, "floor": 1.29}  # fmt: skip
    return row | changes


def timed(**changes):
    row = {"arm": "async", "task": "lesion", "strategy": "dm_gan", "centre": "B", "number": 7, "kind": "gan_gradient",
           "sent_s": 1.0, "started_s": 1.5, "finished_s": 4.0, "outcome": "used", "staleness": 0}  # fmt: skip
    return row | changes


def federation(**changes):
    entry = {"arm": "async", "task": "lesion", "strategy": "dm_gan", "rounds_or_updates": 28, "jobs": 40, "used": 28,
             "lost": 12, "late": 0, "stale": 0, "gone": [{"centre": "C", "from_s": 310.0}], "state_lost": [],
             "transport": {"how": "fp16", "relative_error": np.float64(1.2e-4)}, "notes": ["ü"], "failed": ""}  # fmt: skip
    return entry | changes


def expected(**changes):
    return {
        "centre": "B",
        "kind": "gan_round",
        "messages": 3,
        "bytes_down": 900,
        "bytes_up": None,
        "steps": 60,
    } | changes


WRITERS = {
    "convergence.csv": (
        RunRecord.write_convergence,
        [measured(round=r, series=s, virtual_s=v) for r in (2, 10, 1) for s, v in (("alone", None), ("federation", 1))],
    ),
    "virtual_time.csv": (
        RunRecord.write_virtual_time,
        [timed(sent_s=t, number=t, finished_s=None, outcome="lost") for t in (10, 2, 1)] + [timed(arm='a, "b"')],
    ),
    "federations.json": (RunRecord.write_federations, [federation(), federation(arm="b"), federation(task="mass")]),
    "expected.json": (RunRecord.write_expected, [expected(), expected(kind="learn"), expected(centre="A")]),
}


@pytest.mark.parametrize("name", WRITERS)
def test_federation_files_are_the_same_bytes_in_any_order(record, name):
    write, rows = WRITERS[name]
    write(record, rows)
    first = (record.folder / name).read_bytes()
    for seed in range(5):
        rng = random.Random(seed)
        shuffled = [dict(rng.sample(list(row.items()), len(row))) for row in rows]
        rng.shuffle(shuffled)
        write(record, iter(shuffled))
        assert (record.folder / name).read_bytes() == first
    assert not [p for p in record.folder.iterdir() if p.name.startswith(".")]


def test_federation_files_read_back(record):
    record.write_convergence([measured(centre="NA", floor=None), measured(round=10), measured(virtual_s=math.nan)])
    table = record.convergence()
    assert list(table.columns) == list(CONVERGENCE.columns) and list(table["round"]) == [2, 10, 2]
    assert list(table["centre"]) == ["B", "B", "NA"] and table["floor"].isna().sum() == 1
    record.write_virtual_time([timed(), timed(started_s=None, finished_s=None, outcome="outage", staleness=None)])
    jobs = record.virtual_time()
    assert list(jobs.columns) == list(VIRTUAL_TIME.columns) and list(jobs["outcome"]) == ["used", "outage"]
    assert jobs["started_s"].isna().tolist() == [False, True] and jobs["number"].tolist() == [7, 7]
    record.write_federations([federation()])
    assert record.federations() == [federation()] and record.federations()[0]["transport"]["relative_error"] == 1.2e-4
    record.write_expected([expected()])
    assert record.expected() == [expected()]


KIND = {"kind": "b", "title": "do b", "phase": "share", "rounds": True, "pixels": False}
STRATEGY = {"strategy": "s", "title": "share b", "pixels": False}


def test_kinds_keep_the_order_of_the_study_and_older_runs_have_none(record):
    assert record.kinds() == {"kinds": [], "strategies": []}
    kinds = {
        "kinds": [KIND, KIND | {"kind": "a"}],
        "strategies": [STRATEGY, STRATEGY | {"strategy": "l", "shares": False}],
    }
    record.write_kinds(kinds)
    assert RunRecord.open(record.folder).kinds() == kinds


@pytest.mark.parametrize(
    ("kinds", "strategies", "words"),
    [
        ([KIND, KIND], [], "two rows"),
        ([KIND | {"phase": "rest"}], [], "survey, share, learn, test"),
        ([{"kind": "b"}], [], "lacks the keys"),
        ([], [STRATEGY | {"colour": 1}], "unknown keys \\['colour'\\]"),
    ],
)
def test_kinds_that_are_not_described_are_refused(record, kinds, strategies, words):
    with pytest.raises(RecordError, match=words):
        record.write_kinds({"kinds": kinds, "strategies": strategies})
    assert not (record.folder / "kinds.json").exists()


def test_runs_without_federations_have_no_rows(record):
    assert record.convergence().empty and list(record.convergence().columns) == list(CONVERGENCE.columns)
    assert record.virtual_time().empty and record.federations() == [] and record.expected() == []
    record.write_convergence([])
    record.write_virtual_time([])
    record.write_federations([])
    assert record.convergence().empty and record.virtual_time().empty and record.federations() == []


@pytest.mark.parametrize(
    ("write", "rows", "words"),
    [
        (RunRecord.write_convergence, [measured(series="centre")], "federation, alone, central"),
        (RunRecord.write_convergence, [measured(value=1), measured(value=2)], "two rows"),
        (RunRecord.write_convergence, [measured(colour="red")], "colour"),
        (RunRecord.write_virtual_time, [timed(outcome="gone")], "used, stale, late"),
        (RunRecord.write_virtual_time, [{"outcome": "used"}], "lacks the columns"),
        (RunRecord.write_federations, [federation(), federation(jobs=3)], "two rows"),
        (RunRecord.write_federations, [{"arm": "x"}], "lacks the keys"),
        (RunRecord.write_expected, [expected(bytes=3)], "unknown keys \\['bytes'\\]"),
        (RunRecord.write_expected, [expected(), expected(steps=1)], "two rows"),
    ],
)
def test_what_a_federation_file_cannot_hold_is_refused(record, write, rows, words):
    with pytest.raises(ValueError, match=words):
        write(record, rows)
    assert not any((record.folder / name).exists() for name in WRITERS)


# -- samples -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_samples_grid(record, channels):
    images = np.zeros((18, channels, 5, 7), np.uint8)
    images[17] = 200
    path = record.write_samples("b_flow", images)
    assert path == record.folder / "samples" / "b_flow.png"
    picture = np.asarray(Image.open(path))
    assert picture.shape[:2] == (2 * 5 + 2, 16 * 7 + 15 * 2)
    assert (picture[0, 0] == 0).all() and (picture[0, 7] == 255).all()
    assert (picture[7, 9] == 200).all()  # second row, second column
    assert (picture[7, 18] == 255).all()  # no image there


def test_samples_of_the_wrong_kind_are_refused(record):
    with pytest.raises(ValueError, match=r"float32 \(2, 1, 4, 4\)"):
        record.write_samples("x", np.zeros((2, 1, 4, 4), np.float32))
    with pytest.raises(ValueError, match="at least 1"):
        record.write_samples("x", np.zeros((0, 1, 4, 4), np.uint8))


def test_local_folder(record):
    assert record.local("B") == record.folder / "centres" / "B" and record.local("B").is_dir()


def test_no_temporary_file_is_left(record):
    record.write_unit("a", {}, {"x": np.zeros(3)})
    record.write_results([result()])
    assert not [p for p in record.folder.rglob("*") if p.name.startswith(".")]
    assert json.loads((record.folder / "units" / "a.json").read_text())["arrays"]["bytes"] > 0
