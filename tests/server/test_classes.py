"""Studies of more than two classes, on rectangles of 16 bits, where centres lack classes: in one process, under Ray, over real nodes."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from models import GeneratorPackage
from reports.html import build_report
from reports.run_record import RunRecord
from scenarios.reader import parse

CHECKOUT = Path(__file__).resolve().parents[2]
# B lacks "round", C lacks "plain", and "rare" is at C alone.
HELD = {
    "A": {"plain": 14, "round": 14, "rare": 0},
    "B": {"plain": 16, "round": 0, "rare": 12},
    "C": {"plain": 0, "round": 16, "rare": 16},
}
SCENARIO = """
name: classes
seed: 2
repeats: 1
centres:
  A: {{roles: [receiver], data: &folder {{source: folder, path: "{folder}", centre: A, columns: {{diagnosis: word}}, background: none}}}}
  B: {{roles: [provider], data: {{<<: *folder, centre: B}}}}
  C: {{roles: [provider], data: {{<<: *folder, centre: C}}}}
task: {{name: kind, classes: [plain, round, rare], whole_image: true, image_size: [40, 32], storage: uint16}}
split: {{train: 0.5, val: 0.25, test: 0.25}}
x-gan: &gan {{model: dcgan, width: 4, conditional: true, batch_size: 6, fidelity: {{images: 16, every: 9, fewest_patients: 2}}}}
generators:
  b: {{centre: B, model: dcgan, width: 4, conditional: true, steps: 2, batch_size: 6, ema: 0.9}}
  round: {{centre: C, model: wgan_gp, width: 4, makes: [round], steps: 2, batch_size: 4}}
arms:
  real: {{strategy: local}}
  pooled: {{strategy: pooled, centres: [B, C]}}
  shared: {{strategy: one_shot, generators: [b, round], use: pretrain_mix}}
  average: {{<<: *gan, strategy: fedavg_gan, rounds: 2, local_steps: 2}}
  lock_step: {{<<: *gan, strategy: dm_gan, updates: 2, batches_per_job: 2, lock_step: true}}
  weights: {{<<: *gan, strategy: dm_gan, updates: 2, batches_per_job: 1, lock_step: true, exchange: generator}}
  classifier: {{strategy: fedavg_classifier, rounds: 2, local_steps: 2}}
study:
  classifiers: [cnn_small]
  synthetic: 6
  test_on: [A, B]
  minimum_positives: 4
  schedule: {{real: 4, mix: 4, pretrain: 4}}
  training: {{validate_every: 2, batch_size: 8}}
compute: {{workers: 2, threads_per_job: 1, precision: fp32}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Blank pictures and pictures with a bright disc, of 12 bits."""
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    rows, y, x = ["image,patient_id,centre,word"], *np.mgrid[:50, :40]
    for centre, held in HELD.items():
        for number, word in enumerate(word for word, count in held.items() for _ in range(count)):
            pixels = rng.normal(1200, 200, (50, 40))
            if word != "plain":
                pixels += (np.hypot(y - 25, x - 20) < (12 if word == "round" else 5)) * 1500
            PillowImage.fromarray(pixels.clip(0, 4095).astype(np.uint16)).save(root / f"{centre}{number}.png")
            rows.append(f"{centre}{number}.png,{centre}{number},{centre},{word}")
    (root / "metadata.csv").write_text("\n".join(rows) + "\n")
    return root


def scenario(folder, **changes):
    text = SCENARIO.format(folder=folder)
    for old, new in changes.values():
        assert old in text
        text = text.replace(old, new)
    return parse(text, source="classes.yaml", base=CHECKOUT)


@pytest.fixture(scope="module")
def reference(folder, conduct_in_process, tmp_path_factory):
    done, record = conduct_in_process(scenario(folder), tmp_path_factory.mktemp("classes") / "run")
    assert done, [e for e in record.events() if e["event"] in ("unit_failed", "note", "run_finished")]
    return record


def test_every_arm_is_measured_for_each_class_that_a_test_set_holds(reference):
    results = reference.results().set_index(["arm", "tested_on", "metric"])["value"]
    arms = {"real", "pooled", "shared", "average", "lock_step", "weights", "classifier"}
    assert {arm for arm, _, _ in results.index} == arms
    for arm in arms:
        for centre, defined in (("A", {"plain", "round"}), ("B", {"plain", "rare"})):
            each = {name: results[arm, centre, f"auroc.{name}"] for name in ("plain", "round", "rare")}
            assert {name for name, value in each.items() if not np.isnan(value)} == defined
            assert results[arm, centre, "auroc"] == pytest.approx(np.nanmean(list(each.values())), abs=0.01001), (
                "each is rounded by itself"
            )


def test_predictions_have_a_row_for_each_class_and_sum_to_one(reference):
    table = reference.predictions()
    sums = table.groupby(["arm", "tested_on", "case"])[["label", "probability"]].sum()
    assert (sums["label"] == 1).all() and np.allclose(sums["probability"], 1)
    assert list(dict.fromkeys(table["class"])) == ["plain", "rare", "round"] or set(table["class"]) == {
        "plain",
        "round",
        "rare",
    }


def test_a_class_that_a_generator_never_saw_is_not_drawn_and_that_is_said(reference):
    card = GeneratorPackage.read(reference.folder / "generators" / "b").card
    assert card["learned"] == card["trained_on"]["classes"] == ["plain", "rare"]
    assert GeneratorPackage.read(reference.folder / "generators" / "average").card["learned"] == [
        "plain",
        "round",
        "rare",
    ]
    notes = [event["text"] for event in reference.events() if event["event"] == "note"]
    assert "generator 'b' saw no image of round and makes none" in notes
    assert "no training image of plain (task kind); models are trained without it here" in notes
    counts = {unit["label"]: unit["result"]["counts"] for unit in reference.units() if unit["kind"] == "synthesise"}
    assert counts == {
        "images of b": {"0": 6, "2": 6}, "images of round": {"1": 3}, "images of average": {"0": 6, "1": 6, "2": 6},
        "images of lock_step": {"0": 6, "1": 6, "2": 6}, "images of weights": {"0": 6, "1": 6, "2": 6},
    }  # fmt: skip


def test_patches_keep_16_bits_on_the_way(reference):
    package = GeneratorPackage.read(reference.folder / "generators" / "b")
    assert package.spec.storage == "uint16" and package.spec.shape == (1, 40, 32)
    pooled = [unit for unit in reference.units() if unit["kind"] == "receive_patches"]
    assert {tuple(sorted(unit["result"]["counts"])) for unit in pooled} == {("0", "2"), ("1", "2")}


def test_the_page_shows_each_class(reference):
    build_report(reference)
    page = (reference.folder / "report.html").read_text(encoding="utf-8")
    table = (reference.folder / "table.md").read_text(encoding="utf-8")
    for text in (page, table):
        assert (
            "Macro averages over 3 classes" in text
            and "No image shows rare: not defined, and left out of the averages" in text
        )
    assert "of each class against all others" in page
    partition = reference.partition()
    assert set(partition["class"]) == {"plain", "round", "rare"}
    of_b = partition[partition["centre"] == "B"]
    assert set(of_b["class"]) == {"plain", "round", "rare"} and set(of_b[of_b["class"] == "round"]["images"]) == {"<5"}


def test_a_class_that_no_centre_has_is_one_line(folder, conduct_in_process, tmp_path):
    wrong = scenario(folder, classes=("[plain, round, rare]", "[plain, round, rare, Rarer]"))
    done, record = conduct_in_process(wrong, tmp_path / "run")
    assert (
        not done
        and "task 'kind': no centre has a training image of class 'Rarer'; remove it from task.classes" in said(record)
    )


def test_a_label_outside_the_classes_is_one_line_before_any_training(folder, conduct_in_process, tmp_path):
    wrong = scenario(folder, classes=("[plain, round, rare]", "[plain, round]"))
    done, record = conduct_in_process(wrong, tmp_path / "run")
    assert (
        not done
        and "centre 'B' has images or lesions of none of the classes of its task; see the line below" in said(record)
    )
    assert {event["kind"] for event in record.events() if event["event"] == "unit_started"} == {"survey_data"}


def said(record):
    """How the run ended: bad input, in a line."""
    last = record.events()[-1]
    assert last["event"] == "run_finished" and last["exit_status"] == 2 and "\n" not in last["text"]
    return last["text"]


def test_two_classes_by_name_are_the_binary_study_bit_for_bit(tiny, conduct_in_process, tmp_path):
    """The short form `label: lesion`, and the same two classes as any others."""
    results = []
    for name, task in (("short", {}), ("named", {"label": "diagnosis", "classes": ["healthy", "lesion"]})):
        found = tiny()
        found = found.model_copy(
            update={"task": type(found.task).model_validate(found.task.model_dump(mode="json") | task)}
        )
        done, record = conduct_in_process(found, tmp_path / name)
        assert done
        results.append([(record.folder / file).read_bytes() for file in ("results.csv", "predictions.csv")])
    assert results[0] == results[1]


def run(folder, tmp_path, cache, *more):
    file = tmp_path / "classes.yaml"
    file.write_text(SCENARIO.format(folder=folder))
    command = [
        sys.executable,
        "-m",
        "polycentre",
        "run",
        str(file),
        "--out",
        str(tmp_path / "run"),
        "--cache",
        str(cache),
        "--yes",
        *more,
    ]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return RunRecord.open(tmp_path / "run")


@pytest.mark.slow
@pytest.mark.runtime
@pytest.mark.parametrize(
    ("more", "other"),
    [
        ((), []),
        # Pixels do not leave real nodes, and jobs of dm_gan take the size that fits.
        (("--deployment", "loopback", "--set", "arms.pooled={strategy: local}"), ["pooled", "lock_step", "weights"]),
    ],
)
def test_the_same_under_ray_and_over_real_nodes(reference, folder, patch_cache, tmp_path, more, other):
    record = run(folder, tmp_path, patch_cache, *more)
    assert set(record.results()["arm"]) == set(reference.results()["arm"])
    here, there = (r.results()[lambda table: ~table["arm"].isin(other)] for r in (record, reference))
    assert here.reset_index(drop=True).equals(there.reset_index(drop=True)) and len(here)
    assert json.loads((record.folder / "federations.json").read_text())
