"""Every strategy under Flower's simulation runtime and over real nodes: what the in-process engine computes they compute, too."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from reports.run_record import RunRecord
from scenarios.reader import parse

CHECKOUT = Path(__file__).resolve().parents[2]
SCENARIO = """
name: everywhere
seed: 1
repeats: 1
centres:
  A: {roles: [receiver], data: {source: phantom, patients: 24, scanner: digital}}
  B: {roles: [provider], data: {source: phantom, patients: 24, scanner: film}}
  C: {roles: [provider], data: {source: phantom, patients: 24, scanner: digital-2}}
task: {name: lesion, label: lesion, image_size: 32, margin_mm: 4.2, crops: 2}
x-gan: &gan {model: dcgan, width: 8, batch_size: 4, fidelity: {images: 32, every: 9, fewest_patients: 2}}
generators:
  b_gan: {centre: B, model: dcgan, width: 8, steps: 2, batch_size: 4}
  c_gan: {centre: C, model: dcgan, width: 8, steps: 2, batch_size: 4}
arms:
  real: {strategy: local}
  chosen: {strategy: one_shot, generators: [b_gan, c_gan], choose: {by: distance, fewest_patients: 2}}
  average: {<<: *gan, strategy: fedavg_gan, rounds: 2, local_steps: 2, transport: fp16}
  ring: {<<: *gan, strategy: cyclic, rounds: 2, local_steps: 2}
  lock_step: {<<: *gan, strategy: dm_gan, updates: 2, batches_per_job: 1, lock_step: true}
  async: {<<: *gan, strategy: dm_gan, updates: 3, batches_per_job: 1}
  weights: {<<: *gan, strategy: dm_gan, updates: 2, batches_per_job: 1, exchange: generator}
  swap: {<<: *gan, strategy: md_gan, updates: 2, batches_per_job: 1, swap_every: 1}
  classifier: {strategy: fedavg_classifier, rounds: 1, local_steps: 2}
study:
  classifiers: [cnn_small]
  synthetic: 8
  minimum_positives: 2
  schedule: {real: 4, mix: 4}
  training: {validate_every: 2, batch_size: 8}
compute: {workers: 2, threads_per_job: 1, precision: fp32}
"""
# Over real nodes answers come when they come, and jobs take the size that fits.
ASYNCHRONOUS = {"async", "weights", "lock_step", "swap"}


@pytest.fixture(scope="module")
def reference(conduct_in_process, tmp_path_factory):
    """The run in this process."""
    scenario = parse(SCENARIO, source="everywhere.yaml", base=CHECKOUT)
    done, record = conduct_in_process(scenario, tmp_path_factory.mktemp("reference") / "run")
    assert done, record.events()[-1]
    return record


def test_every_strategy_has_its_results(reference):
    arms = set(reference.results()["arm"])
    assert arms == set(parse(SCENARIO, source="everywhere.yaml", base=CHECKOUT).arms)


@pytest.mark.slow
@pytest.mark.runtime
def test_under_ray(reference, patch_cache, tmp_path):
    record = run(tmp_path, patch_cache)
    for name in ("results.csv", "convergence.csv", "virtual_time.csv", "federations.json"):
        assert (record.folder / name).read_bytes() == (reference.folder / name).read_bytes(), name


@pytest.mark.runtime
@pytest.mark.slow
def test_over_real_nodes(reference, patch_cache, tmp_path):
    record = run(tmp_path, patch_cache, "--deployment", "loopback")
    here, there = (r.results().set_index(["arm", "metric"])["value"] for r in (record, reference))
    same = [key for key in there.index if key[0] not in ASYNCHRONOUS]
    assert here[same].equals(there[same])
    assert set(here.index) == set(there.index)
    entries = {entry["arm"]: entry for entry in json.loads((record.folder / "federations.json").read_text())}
    assert {"average", "ring", "async", "weights", "swap", "lock_step", "classifier"} <= set(entries)
    assert all(entry["lost"] == 0 and not entry["gone"] for entry in entries.values()), entries


def run(tmp_path, cache, *arguments):
    """`polycentre run` from start to report."""
    (tmp_path / "everywhere.yaml").write_text(SCENARIO)
    command = [sys.executable, "-m", "polycentre", "run", str(tmp_path / "everywhere.yaml"), *arguments]
    command += ["--out", str(tmp_path / "run"), "--cache", str(cache)]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return RunRecord.open(tmp_path / "run")
