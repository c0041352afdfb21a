"""The workshop: a folder in which the commands of the documents are tried, with all that they name."""

import os
import shutil
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]

STUDY = """
name: study
seed: 1
repeats: 1
centres:
  A: {roles: [receiver], data: {source: phantom, patients: 16, scanner: digital}}
  B: {roles: [provider], data: {source: phantom, patients: 16, scanner: film}}
task: {label: lesion, image_size: 32, crops: 2}
generators: {b: {centre: B, model: dcgan, width: 4, steps: 2, batch_size: 4}}
arms: {real: {strategy: local}, b: {strategy: one_shot, generators: [b]}}
study:
  {classifiers: [cnn_small], synthetic: 6, minimum_positives: 2, schedule: {real: 2, mix: 2},
   training: {validate_every: 2, batch_size: 8}}
compute: {workers: 1, threads_per_job: 1, precision: fp32}
"""


@pytest.fixture(scope="module")
def workshop(tmp_path_factory, patch_cache):
    """study.yaml, a finished run of it in runs/study-1, site/ as `deploy init` makes it, and two deployments."""
    from rich.console import Console

    from polycentre.deploy import prepare
    from polycentre.run import run_scenario

    folder = tmp_path_factory.mktemp("workshop")
    (folder / "study.yaml").write_text(STUDY)
    settings = {
        "workspace": str(folder / "B"), "approve": {"bundles": "own", "studies": "listed"},
        "data": {"source": "phantom", "patients": 16, "scanner": "film"},
    }  # fmt: skip
    prepare(folder / "site", {"B": settings}, ["superlink.example.org", "127.0.0.1"],
            superlink="superlink.example.org:8000", operator="127.0.0.1:8001")  # fmt: skip
    for name in ("hospitals", "local"):
        shutil.copytree(folder / "site" / "operator", folder / "deployments" / name)
    before = Path.cwd()
    os.chdir(folder)
    try:
        status = run_scenario(
            Console(quiet=True),
            "study.yaml",
            [],
            Path("runs/study-1"),
            False,
            "inprocess",
            None,
            None,
            patch_cache,
            None,
            True,
        )
    finally:
        os.chdir(before)
    assert status == 0
    return folder
