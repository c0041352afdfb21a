"""The precision that a run chose: kept over sessions, taken over by another run, and measured where it is not known."""

import json
import shutil

import pytest

from models import precision
from polycentre.command_line import main
from reports.run_record import RecordError, RunRecord

# One generator and one classifier: b_gan at centre B, and what A learns with it.
SMALL = (
    "compute.precision=auto", "generators.c_flow=null", "arms.both=null", "arms.c_both=null", "arms.pooled=null",
    "arms.again=null", "repeats=1", "study.test_on=[A]",
)  # fmt: skip


@pytest.fixture
def stopwatch(monkeypatch, patch_cache):
    """Function: forget what was measured, and let bf16 be so many times faster than fp32 from now on."""
    yield lambda gain: let_bf16_gain(gain, monkeypatch, patch_cache)
    forget(patch_cache)


def let_bf16_gain(gain, monkeypatch, cache):
    forget(cache)
    monkeypatch.setattr(precision, "bf16_flags", lambda: ["amx_bf16"])
    monkeypatch.setattr(precision, "_gain", lambda *_: gain)


def forget(cache):
    for folder in cache.rglob("precision"):
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def first_once(tiny, conduct_in_process, patch_cache, tmp_path_factory):
    """A run whose stopwatch found bf16 faster."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        let_bf16_gain(2.0, monkeypatch, patch_cache)
        done, record = conduct_in_process(tiny(*SMALL), tmp_path_factory.mktemp("first") / "run")
    assert done
    return record


@pytest.fixture
def results(first_once, tmp_path):
    """A copy of that run's record, and the bytes of its results."""
    shutil.copytree(first_once.folder, tmp_path / "first")
    return RunRecord.open(tmp_path / "first"), files(first_once)


def files(record):
    return [(record.folder / name).read_bytes() for name in ("results.csv", "predictions.csv")]


def notes(record):
    return [event["text"] for event in record.events() if event["event"] == "note" and "precision" in event["text"]]


def test_the_choice_is_written_per_centre_and_model(results):
    record, _ = results
    generator, classifier = "generator/b_gan/lesion", "classifier/cnn_small/lesion"
    assert record.precision() == {
        "A": {generator: "bf16", classifier: "bf16"}, "B": {generator: "bf16"}, "C": {},
    }  # fmt: skip
    assert notes(record) == []


def test_a_resumed_run_goes_on_in_its_precision(results, tiny, conduct_in_process, stopwatch):
    record, before = results
    for path in (record.folder / "units").iterdir():
        path.unlink()
    stopwatch(0.5)
    done, again = conduct_in_process(tiny(*SMALL), record.folder, resume=True)
    assert done and files(again) == before
    assert again.precision()["A"]["classifier/cnn_small/lesion"] == "bf16"


@pytest.fixture
def rerun(tmp_path, tiny_text, monkeypatch, patch_cache, capfd):
    """Function: `polycentre run` of the same scenario, in-process; returns its record, the exit status and stderr."""
    folder, file = tmp_path / "again", tmp_path / "scenario.yaml"
    monkeypatch.setenv("POLYCENTRE_CACHE", str(patch_cache))
    file.write_text(tiny_text)

    def run(*options):
        settings = [word for setting in SMALL for word in ("--set", setting)]
        arguments = ["run", file, "--engine", "inprocess", "--out", folder, *settings, *options]
        monkeypatch.setattr("sys.argv", ["polycentre", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        return RunRecord(folder), end.value.code, capfd.readouterr().err

    return run


def test_a_rerun_in_the_precision_of_another_gives_its_bytes(results, rerun, stopwatch):
    record, before = results
    stopwatch(0.5)
    other, status, _ = rerun("--precision-of", record.folder)
    assert status == 0 and files(other) == before and other.precision() == record.precision()


def test_a_rerun_that_measures_again_gives_other_bytes(results, rerun, stopwatch):
    """Or the tests above would show nothing."""
    record, before = results
    stopwatch(0.5)
    other, status, _ = rerun()
    assert status == 0 and files(other) != before
    assert {value for models in other.precision().values() for value in models.values()} == {"fp32"}


def test_what_the_other_run_lacks_is_measured_and_said(results, rerun, stopwatch):
    record, _ = results
    chosen = record.precision()
    del chosen["A"]["classifier/cnn_small/lesion"], chosen["B"]
    record.write_precision(chosen)
    stopwatch(0.5)
    other, status, _ = rerun("--precision-of", record.folder)
    assert status == 0
    assert other.precision() == {
        "A": {"generator/b_gan/lesion": "bf16", "classifier/cnn_small/lesion": "fp32"},
        "B": {"generator/b_gan/lesion": "fp32"}, "C": {},
    }  # fmt: skip
    assert notes(other) == [
        f"precision.json lacked {model} of centre {centre!r}; measured anew"
        for centre, model in (("A", "classifier/cnn_small/lesion"), ("B", "generator/b_gan/lesion"))
    ]


def test_a_run_without_a_choice_is_refused_in_one_line(results, rerun):
    record, _ = results
    file = record.folder / "precision.json"
    for content, expected in (
        (None, "has no precision.json"),
        ("{", "does not name fp32 or bf16"),
        (json.dumps({"A": {"x": "fp8"}}), "does not name fp32 or bf16"),
    ):
        file.unlink() if content is None else file.write_text(content)
        other, status, err = rerun("--precision-of", record.folder)
        assert status == 2 and expected in err and len(err.strip().splitlines()) == 1
        assert not other.folder.exists(), "nothing half-written"
    with pytest.raises(RecordError):
        record.precision()


def test_a_scenario_that_sets_the_precision_has_its_way(results, tiny, conduct_in_process):
    record, before = results
    done, again = conduct_in_process(tiny(*SMALL, "compute.precision=fp32"), record.folder, resume=True)
    assert done and files(again) != before
    assert set(again.precision()["A"].values()) == {"fp32"} and notes(again) == []
