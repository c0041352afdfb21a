"""A strategy with kinds of jobs of its own is one file and one entry of `STRATEGIES`; nothing else is touched.

It is added to a copy of the checkout, and all engines run from there: a patch in memory would reach no bundle, no Ray worker and
no node.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
ADDED = Path(__file__).parent / "added"
STRATEGY = CHECKOUT / "docs" / "example-plugin" / "polycentre_example" / "strategy.py"
SCENARIO = """
name: new
repeats: 1
centres:
  A: {roles: [receiver], data: {source: phantom, patients: 24, scanner: digital}}
  B: {roles: [provider], data: {source: phantom, patients: 24, scanner: film}}
task: {name: lesion, label: lesion, image_size: 32, margin_mm: 4.2, crops: 2}
arms:
  real: {strategy: local}
  new: {strategy: averages, images: 600, classes: both}
study:
  classifiers: [cnn_small]
  minimum_positives: 2
  schedule: {real: 2, mix: 2}
  training: {validate_every: 2, batch_size: 8}
compute: {workers: 2, threads_per_job: 1, precision: fp32}
"""


def in_copy(copy, *arguments, timeout=570):
    """A command of the project in the copy; what it printed."""
    environment = os.environ | {"POLYCENTRE_CACHE": str(copy / "cache"), "COLUMNS": "200"}
    environment.pop("PYTHONPATH", None)
    command = [copy / "venv" / "bin" / "python", *map(str, arguments)]
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def copy(tmp_path_factory, make_environment):
    """A copy of the checkout with the strategy in it."""
    folder = tmp_path_factory.mktemp("new") / "copy"
    left_out = shutil.ignore_patterns(
        ".git", ".venv", "runs", "tests", "bench", "docs", "__pycache__", ".*_cache", "*.egg-info"
    )
    shutil.copytree(CHECKOUT, folder, ignore=left_out)
    shutil.copy(STRATEGY, folder / "strategies" / "averages.py")
    table = folder / "strategies" / "__init__.py"
    text = table.read_text()
    for before, entry in (
        ("from strategies.cells import LEARN, TEST\n", "from strategies.averages import Averages\n"),
        ("        Local(),\n", "        Averages(),\n"),
    ):
        assert text.count(before) == 1
        text = text.replace(before, entry + before)
    table.write_text(text)
    (folder / "new.yaml").write_text(SCENARIO)
    make_environment(folder / "venv", folder)
    found = in_copy(folder, "-c", "import importlib.util; print(importlib.util.find_spec('strategies').origin)")
    assert Path(found.strip()).is_relative_to(folder)
    return folder


@pytest.fixture(scope="module")
def run(copy):
    """The study, in one process."""
    in_copy(copy, "-m", "polycentre", "run", "new.yaml", "--engine", "inprocess", "--out", "run")
    return copy / "run"


def test_the_strategy_is_short():
    assert len(STRATEGY.read_text().splitlines()) <= 130


def test_it_runs_in_one_process_and_the_report_names_it(run):
    assert "new,averages,lesion,cnn_small" in (run / "results.csv").read_text()
    page = (run / "report.html").read_text()
    for words in ("average patches", "keep averages", "averages of patches"):
        assert words in page


def test_validate_predicts_its_bytes(copy, run):
    assert "average patches" in in_copy(copy, "-m", "polycentre", "validate", "new.yaml")
    code = """
import json, sys
from collections import Counter
expected, measured = json.load(open("run/expected.json")), Counter()
for line in open("run/events.jsonl"):
    event = json.loads(line)
    if event["event"] == "unit_finished":
        for way in ("down", "up"):
            measured[event["centre"], event["kind"], way] += event[f"bytes_{way}"]
for row in expected:
    if row["kind"] in ("average_patches", "keep_averages"):
        for way in ("down", "up"):
            size = row[f"bytes_{way}"]
            assert size == 0 or abs(measured[row["centre"], row["kind"], way] - size) <= 0.05 * size, (row, measured)
            print(row["kind"], way, size)
"""
    printed = in_copy(copy, "-c", code)
    assert f"average_patches up {2 * 600 * 32 * 32}" in printed and f"keep_averages down {2 * 600 * 32 * 32}" in printed


def test_a_hospitals_page_lists_its_fields_and_a_policy_without_it_refuses_it(copy, centre_file):
    careful = centre_file(copy / "hospital", "B", release={"strategies": ["local", "averages"]})
    strict = centre_file(copy / "strict", "B", release={"strategies": ["local"]}, approve={"studies": "any"})
    code = """
import sys
from pathlib import Path
from clients import policy
from clients.centre_file import CentreFile
from clients.node import Node, Refusal
from federation.wire.job import Job
from polycentre.centre_plan import plan_page
from scenarios.reader import read
careful, strict = (CentreFile.read(Path(file)) for file in sys.argv[1:])
for file in (careful, strict):
    Path(f"{file.workspace.parent.name}.md").write_text(plan_page(file, read("new.yaml"), "approve"))
node = Node("B", strict.workspace, strict.cache_folder, deployed=True, file=strict)
try:
    policy.accept(node, Job("s", "u", "B", "average_patches", {}, strategy="averages"))
except Refusal as refusal:
    print(refusal.code, refusal.numbers)
"""
    assert in_copy(copy, "-c", code, careful, strict) == "strategy_refused {'strategy': 'averages'}\n"
    page = (copy / "hospital.md").read_text()
    assert "### average patches" in page and "means over patches of several patients" in page and "**Yes**" in page
    assert "strategy `averages` is not in release.strategies" in (copy / "strict.md").read_text()


@pytest.mark.slow
@pytest.mark.runtime
def test_it_runs_under_ray(copy, run):
    in_copy(copy, "-m", "polycentre", "run", "new.yaml", "--engine", "ray", "--out", "under-ray")
    assert (copy / "under-ray" / "results.csv").read_bytes() == (run / "results.csv").read_bytes()


@pytest.mark.slow
@pytest.mark.runtime
def test_it_runs_over_nodes_that_have_approved_the_study(copy, run):
    in_copy(copy, ADDED / "over_nodes.py", "new.yaml", "over-nodes")
    assert (copy / "over-nodes" / "results.csv").read_bytes() == (run / "results.csv").read_bytes()
