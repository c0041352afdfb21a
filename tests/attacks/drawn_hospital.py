"""A hospital whose pictures are drawn, with its centre.yaml and its approvals; whoever holds it plays the server."""

from pathlib import Path
from uuid import uuid4

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from clients import app
from clients.approval import Approvals
from clients.centre_file import TRIAL_MINIMUMS, CentreFile
from clients.node import Node
from clients.side import load_patches
from data_partitions import PatchDataset
from federation.wire.code_digest import code_digest
from federation.wire.job import Job, Reply
from federation.wire.units import scenario_digest
from scenarios.plan import Plan
from scenarios.reader import parse, resolved_yaml
from strategies.ask import Ask

SIDE = 128
STUDY = """
name: {name}
seed: 3
centres:
  A: {{roles: [receiver], data: {{source: phantom, patients: 24}}}}
  B: {{roles: [provider], data: {{source: phantom, patients: 24}}}}
  C: {{roles: [provider], data: {{source: phantom, patients: 24}}}}
arms:
  real: {{strategy: local}}
  average: {{strategy: fedavg_gan, model: dcgan, width: 4, rounds: 4, local_steps: 2, batch_size: 4, fidelity: {fidelity}}}
study: {{minimum_positives: 1}}
{more}
"""


def draw(folder: Path, *, positives: int = 20, negatives: int = 20, calcifications: int = 0, scanners: int = 1) -> Path:
    """One picture of each patient, with a spot in those of the first `positives`; tables as sources of kind folder read them.

    Args:
        calcifications: of the spots, how many are called so; the others are masses.
        scanners: of how many patients in turn one has a scanner of another maker.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    images, lesions = ["image,patient_id,patient_name,scanner"], ["image,kind,x,y,radius,severity"]
    for k in range(positives + negatives):
        noise = gaussian_filter(rng.normal(size=(SIDE, SIDE)), 4)
        picture = (noise - noise.min()) / np.ptp(noise) * 160 + 40
        if k < positives:
            y, x = rng.integers(50, SIDE - 50, 2)
            rows, columns = np.mgrid[:SIDE, :SIDE]
            picture += 60 * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 200)
            kind, severity = "calcification" if k < calcifications else "mass", "malignant" if k % 2 else "benign"
            lesions.append(f"i{k:03d}.png,{kind},{x},{y},20,{severity}")
        Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(folder / f"i{k:03d}.png")
        images.append(
            f"i{k:03d}.png,MRN-{7000 + k},Jane Doe {k},{'Siemens Mammomat' if k % scanners else 'GE Senographe'}"
        )
    (folder / "metadata.csv").write_text("\n".join(images) + "\n")
    (folder / "lesions.csv").write_text("\n".join(lesions) + "\n")
    return folder


class DrawnHospital:
    """Centre B, a deployed node over drawn pictures; studies are approved as they come.

    Args:
        centre_file: the fixture.
        sum_patients: minimum of its centre.yaml, where everything else is as low as in a trial.
        data: keys of its data section beside the folder.
    """

    def __init__(self, centre_file, folder, pictures, sum_patients=20, **data):
        self.data = {"source": "folder", "path": str(pictures), "lesions": "lesions.csv", "background": "none", **data}
        minimums = TRIAL_MINIMUMS.model_copy(update={"sum_patients": sum_patients}).model_dump(mode="json")
        self.path = centre_file(folder, "B", data=self.data, minimums=minimums)
        self.file = CentreFile.read(self.path)
        self.file.workspace.mkdir(parents=True, exist_ok=True)
        self.file.workspace.chmod(0o700)

    def plan(self, name, more, fidelity="{spaces: [texture, randnet]}") -> Plan:
        """An approved study; `more` is the YAML of its tasks and splits."""
        scenario = parse(STUDY.format(name=name, more=more, fidelity=fidelity), source="study.yaml", base=Path("/"))
        Approvals(self.file.workspace).add(resolved_yaml(scenario))
        return Plan(scenario, deployed=True)

    def ask(self, plan: Plan, ask: Ask, arrays: dict[str, np.ndarray] | None = None, **found) -> Reply:
        """The node's reply to one job of a study, over the envelope both ways."""
        body = ask.filled(**{**ask.example, **found})
        if "compute" in body:
            body["compute"] |= {"device": "cpu", "precision": "fp32"}
        job = Job("study", uuid4().hex[:16], "B", ask.kind.name, body, arrays or {}, code=code_digest(), strategy=ask.strategy,
                  scenario=scenario_digest(resolved_yaml(plan.scenario)))  # fmt: skip
        reply = app.answer(Job.from_record(job.to_record()), {"centre_file": str(self.path)})
        return Reply.from_record(reply.to_record(), job)

    def survey(self, plan: Plan) -> Reply:
        return self.ask(plan, plan.survey_ask("B"))

    def sums(self, plan: Plan, task: str | None = None) -> Reply:
        """Its reply to what the study asks it of sums of features."""
        return self.ask(plan, self._sums(plan, task))

    def truth(self, plan: Plan, task: str | None = None) -> PatchDataset:
        """What no server sees: the training patches of the positive class."""
        body = self._sums(plan, task).outline
        node = Node.own({"centre_file": str(self.path)})
        patches = load_patches(node, body.model_copy(update={"data": self.data}), body.task)
        return patches.select(split="train", labels=(1,))

    def _sums(self, plan: Plan, task: str | None) -> Ask:
        return next(
            ask for ask in plan.asks()
            if (ask.kind.name, ask.centre) == ("feature_sums", "B") and task in (None, ask.task)
        )  # fmt: skip
