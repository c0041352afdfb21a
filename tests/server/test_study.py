"""The whole path in one process: what comes out, what is done again and what is not, and what never travels."""

import json
import shutil
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from flwr.app import Error, Message

from federation.wire.job import Job
from reports.html import build_report
from reports.run_record import RunRecord


def units(record, *, cached):
    """Kinds of the units finished in the last session."""
    events = record.events()
    start = max(i for i, e in enumerate(events) if e["event"] == "run_started")
    return Counter(e["kind"] for e in events[start:] if e["event"] == "unit_finished" and e["cached"] is cached)


@pytest.fixture(scope="module")
def finished_once(tiny, conduct_in_process, tmp_path_factory):
    done, record = conduct_in_process(tiny(), tmp_path_factory.mktemp("finished") / "run")
    assert done, [e for e in record.events() if e["event"] in ("unit_failed", "run_finished")]
    return record


@pytest.fixture
def finished(finished_once, tmp_path):
    """A finished run that a test may go on with."""
    shutil.copytree(finished_once.folder, tmp_path / "finished")
    return RunRecord.open(tmp_path / "finished")


def test_every_cell_is_in_the_results(finished):
    results = finished.results()
    # 6 arms x 2 repeats x 2 test centres x 5 metrics
    assert len(results) == 6 * 2 * 2 * 5
    assert set(results["tested_on"]) == {"A", "C"}
    assert set(results["metric"]) == {"accuracy", "balanced_accuracy", "f1", "auroc", "auprc"}
    synthetic = results.groupby("arm")["n_synthetic"].first()
    assert (synthetic["real"], synthetic["b_gan"], synthetic["both"], synthetic["c_both"], synthetic["again"]) == (
        0,
        8,
        8,
        16,
        8,
    )
    files = {p.name for p in finished.folder.iterdir()}
    assert {"scenario.yaml", "events.jsonl", "results.csv", "predictions.csv", "generators", "samples"} <= files
    assert {p.name for p in (finished.folder / "generators").iterdir()} == {"b_gan", "c_flow"}
    privacy = json.loads((finished.folder / "privacy.json").read_text())
    assert privacy["pixels_left"] == ["B"]
    assert privacy["generators"]["b_gan/lesion"]["differential_privacy"] is None
    weights = sum(f.stat().st_size for f in (finished.folder / "generators" / "b_gan").glob("*.safetensors"))
    # The reply also holds a preview of 32 images.
    assert privacy["left_each_centre"]["B"]["train_generator"]["bytes"] == pytest.approx(
        weights + 32 * 32 * 32, rel=0.1
    )
    assert build_report(finished).exists() and (finished.folder / "table.md").exists()


def test_the_partition_is_recorded_without_identifiers(finished):
    table = pd.read_csv(finished.folder / "partition.csv", dtype=str)
    assert list(table.columns) == ["centre", "task", "split", "class", "patients", "images", "digest"]
    assert {(c, s) for c, s in zip(table["centre"], table["split"], strict=True)} >= {
        (centre, "train") for centre in "ABC"
    } and set(table["class"]) == {"lesion", "healthy"}
    shown = {*table["patients"], *table["images"]}
    assert shown <= {"<5", *map(str, range(5, 200, 5))} and "<5" in shown, "small cells are suppressed, others rounded"
    assert not table["digest"].dropna().duplicated().any()


def test_metrics_follow_from_the_predictions(finished):
    from sklearn.metrics import roc_auc_score

    cell = ["arm", "repeat", "tested_on"]
    auroc = finished.results().query("metric == 'auroc'").set_index(cell)["value"]
    for key, table in finished.predictions().groupby(cell):
        assert auroc[key] == pytest.approx(roc_auc_score(table["label"], table["probability"]), abs=0.00501)


def test_resuming_a_finished_run_computes_nothing_and_changes_nothing(finished, tiny, conduct_in_process):
    before = (finished.folder / "results.csv").read_bytes()
    done, record = conduct_in_process(tiny(), finished.folder, resume=True)
    assert done and (record.folder / "results.csv").read_bytes() == before
    assert set(units(record, cached=False)) == {"survey_data"}


def test_another_run_gives_the_same_bytes(finished, tiny, conduct_in_process, tmp_path):
    _, record = conduct_in_process(tiny(), tmp_path / "again")
    assert (record.folder / "results.csv").read_bytes() == (finished.folder / "results.csv").read_bytes()
    assert (record.folder / "predictions.csv").read_bytes() == (finished.folder / "predictions.csv").read_bytes()


def test_an_interrupted_run_resumes_to_the_same_bytes(finished, tiny, conduct_in_process, tmp_path):
    for stop_at in (4, 9, 17):
        seen = []

        def interrupt(message, seen=seen, stop_at=stop_at):
            seen.append(message)
            if len(seen) == stop_at:
                raise KeyboardInterrupt
            return None

        folder = tmp_path / f"stopped-{stop_at}"
        with pytest.raises(KeyboardInterrupt):
            conduct_in_process(tiny(), folder, fault=interrupt)
        first = units(RunRecord.open(folder), cached=False)
        done, record = conduct_in_process(tiny(), folder, resume=True)
        assert done
        assert (record.folder / "results.csv").read_bytes() == (finished.folder / "results.csv").read_bytes()
        kept = first - Counter({"survey_data": 99, "send_patches": 99})
        assert units(record, cached=True) >= kept - Counter({"receive_patches": 99}), "finished work was done again"


def test_one_setting_redoes_what_depends_on_it(finished, tiny, conduct_in_process):
    done, record = conduct_in_process(tiny("generators.b_gan.steps=4"), finished.folder, resume=True)
    assert done
    again = units(record, cached=False)
    # b_gan and its pool; the two arms with it, twice; their tests at C
    assert again - Counter({"survey_data": 9}) == Counter(
        train_generator=1, synthesise=1, learn_classifier=4, test_classifier=4
    )


def test_data_of_one_centre_redoes_what_depends_on_it(finished, tiny, conduct_in_process):
    done, record = conduct_in_process(tiny("centres.C.data.patients=26"), finished.folder, resume=True)
    assert done
    again = units(record, cached=False)
    # c_flow, its pools of positives and of both classes, the arms that use it; all tests at C look at its new test set
    assert again - Counter({"survey_data": 9}) == Counter(
        train_generator=1, synthesise=2, learn_classifier=4, test_classifier=12
    )


def test_a_failing_provider_takes_only_what_depends_on_it(tiny, conduct_in_process, tmp_path):
    def fault(message):
        job = Job.from_record(message.content)
        return Message(Error(code=2, reason="x"), reply_to=message) if job.label == "b_gan" else None

    done, record = conduct_in_process(tiny(), tmp_path / "run", fault=fault)
    assert not done
    assert set(record.results()["arm"]) == {"real", "c_both", "pooled", "again"}
    (failed,) = [e for e in record.events() if e["event"] == "unit_failed"]
    assert failed["centre"] == "B" and "b_gan" in failed["text"]
    end = record.events()[-1]
    assert (end["event"], end["status"], end["exit_status"]) == ("run_finished", "failed", 1)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("study.minimum_positives=500", "centre 'A' has [0-9]+ positive training examples.*500 are needed"),
        ("generators.b_gan.batch_size=5000", "centre 'B' has fewer training patches.*its batch_size of 5000"),
    ],
)
def test_data_that_cannot_do_is_refused_before_any_training(override, expected, tiny, conduct_in_process, tmp_path):
    import re

    done, record = conduct_in_process(tiny(override), tmp_path / "run")
    end = record.events()[-1]
    assert not done and end["exit_status"] == 2
    assert re.search(expected, end["text"]), end["text"]
    assert not [e for e in record.events() if e["event"] == "unit_started" and e["kind"] != "survey_data"]


# -- what never travels --------------------------------------------------------------------------------------


def run_and_listen(scenario, conduct_in_process, folder):
    sent = []

    def listen(message):
        if message.has_content():
            sent.extend(a.numpy() for a in message.content.array_records["arrays"].values())

    _, record = conduct_in_process(scenario, folder, on_message=listen)
    return sent, record


def test_no_patch_of_a_centre_is_in_any_message_unless_pooled(
    tiny, conduct_in_process, tmp_path, patch_cache, patches_of, leaks
):
    sent, _ = run_and_listen(tiny("arms.pooled=null"), conduct_in_process, tmp_path / "one_shot")
    patches = patches_of(patch_cache)
    assert len(patches) > 100
    some = np.frombuffer(sorted(patches)[50], np.uint8)
    for form in (
        some,
        some.reshape(32, 32)[:, ::-1],
        (some / 127.5 - 1).astype(np.float32),
        (some / 255).astype(np.float16),
    ):
        assert leaks([form], patches), "the detector must see a patch in any of these forms"
    assert not leaks(sent, patches)
    sent, _ = run_and_listen(tiny(), conduct_in_process, tmp_path / "pooled")
    assert leaks(sent, patches), "the detector must see what `pooled` sends"


def test_pixels_of_a_pooled_run_are_in_no_file_of_the_server(
    tiny, conduct_in_process, tmp_path, patch_cache, patches_of, leaks
):
    _, record = run_and_listen(tiny(), conduct_in_process, tmp_path / "run")
    arrays = [a for info in record.units() for a in (record.read_unit(info["unit"])[1] or {}).values()]
    assert arrays and not leaks(arrays, patches_of(patch_cache))
