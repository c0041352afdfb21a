"""A new data source is one file and one line: in a copy of the checkout, nothing else is touched."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from federation.wire.code_digest import ALL

CHECKOUT = Path(__file__).resolve().parents[2]
LINE = "from data_partitions.archives.stripes import StripesSource\n"
SOURCE = '''"""Striped images with a square lesion in each; a folder's only file says how many."""

from pathlib import Path
from typing import Literal

import numpy as np

from data_partitions.archives.account import Account
from data_partitions.archives.archive import ArchiveSource
from data_partitions.exams import Box, Exam, Lesion


class StripesSource(ArchiveSource):
    source: Literal["stripes"] = "stripes"
    brightness: int = 100

    def _exams(self, account: Account) -> list[Exam]:
        count = int((self.path / "count.txt").read_text())
        account.digests = {f"s{i}": str(i) for i in range(count)}
        return [
            Exam(
                patient=f"s{i}", name=f"s{i}", shape=(48, 48), open=lambda: Stripes(self.brightness), malignant=bool(i % 2),
                lesions=(Lesion(Box(8, 8, 16, 16), "mass", bool(i % 2)),),
            )
            for i in range(count)
        ]


class Stripes:
    def __init__(self, brightness: int) -> None:
        self.brightness = brightness

    def window(self, box: Box) -> np.ndarray:
        rows = np.arange(box.top, box.bottom) % 2 * self.brightness
        return np.repeat(rows.astype(np.uint8)[:, None, None], box.width, axis=1)

    def tissue(self, step: int) -> np.ndarray:
        return np.ones((-(-48 // step), -(-48 // step)), dtype=bool)
'''
SCENARIO = """
name: stripes
centres:
  A: {roles: [receiver], data: {source: stripes, path: images}}
  B: {roles: [provider], data: {source: phantom, patients: 4}}
  C: {roles: [provider]}
partition: {source: {source: stripes, path: images}, by: size, centres: {C: 12}}
task: {name: malignant, label: malignancy, image_size: 16, margin_px: 4, crops: 1}
arms: {real: {strategy: local}}
study: {classifiers: [cnn_small]}
"""
# What a node does with a job of the survey, and what a user sees of a mistake.
PROGRAM = """
import json
from pathlib import Path
from types import SimpleNamespace

from clients.centre_file import _data_problems
from clients.side import load_patches
from scenarios.plan import Plan
from scenarios.reader import ScenarioError, parse, resolved_yaml
from strategies.bodies import OfTask

here = Path.cwd()
text = (here / "scenario.yaml").read_text()
scenario = parse(text, source="stripes.yaml", base=here)
assert parse(resolved_yaml(scenario), source="again", base=here).centres == scenario.centres
out = {}
for centre in "AC":
    node = SimpleNamespace(centre=centre, cache=here / "cache")
    patches = load_patches(node, OfTask(**(body := Plan(scenario).data(centre, "malignant"))), body["task"])
    out[centre] = patches.data_card() | {"pixels": sorted({int(v) for v in patches.pixels.ravel()})}
out["errors"] = []
for wrong in (("stripes, path: images", "stripes, path: images, colour: red"), ("source: stripes", "source: strips")):
    try:
        parse(text.replace(*wrong), source="stripes.yaml", base=here)
    except ScenarioError as error:
        out["errors"].append(str(error))
out["centre file"] = _data_problems({"source": "stripes", "path": "images", "brightness": "much"}, here)
print(json.dumps(out))
"""


def test_a_source_is_one_file_and_one_line(tmp_path):
    import json

    copy, here = tmp_path / "checkout", tmp_path / "work"
    for package in (*ALL, "polycentre"):
        shutil.copytree(CHECKOUT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "data_partitions/archives/stripes.py").write_text(SOURCE)
    table = copy / "data_partitions/sources.py"
    before = "from data_partitions.archives.medmnist import MedmnistSource\n"
    assert before in table.read_text()
    table.write_text(table.read_text().replace(before, before + LINE))

    (here / "images").mkdir(parents=True)
    (here / "images/count.txt").write_text("40")
    (here / "scenario.yaml").write_text(SCENARIO)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=here, env=os.environ | {"PYTHONPATH": str(copy)}, capture_output=True, text=True
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["A"]["patients"] == 40 and list(found["A"]["lesion_type"]) == ["mass"]
    assert found["C"]["patients"] == 10, "a new source can be dealt out to several centres, too"
    assert max(found["A"]["pixels"]) == 100
    keys, names = found["errors"]
    assert "centres.A.data.colour: unknown key; known keys: " in keys and "brightness" in keys
    assert "'phantom', 'folder'" in names and "'stripes'" in names
    assert "data.brightness" in found["centre file"][0]
