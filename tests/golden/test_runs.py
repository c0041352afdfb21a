"""Two small studies, run: every job as it was sent with what it depends on, and the results."""

import csv
import hashlib
import re
from collections import Counter

import pytest
import torch

import federation.wire.units
from federation.wire.job import canonical_json
from models.precision import processor

MORE = (
    "arms.average.alone=true", "arms.average.transport=fp16", "arms.average.average_ema=rebuild",
    "arms.remote.transport=int8", "arms.remote.clip=1.0",
    "arms.swap={strategy: md_gan, model: wgan_gp, width: 4, critic_steps: 1, batch_size: 4, updates: 4, batches_per_job: 2, "
    "swap_every: 2, fidelity: {images: 16, every: 4, fewest_patients: 2}}",
    "arms.central={strategy: pooled_gan, model: dcgan, width: 4, batch_size: 4, rounds: 2, local_steps: 2, "
    "fidelity: {images: 16, every: 2, fewest_patients: 2}}",
    "arms.classifier={strategy: fedavg_classifier, rounds: 3, local_steps: 2, fine_tune: 2, optimizer: keep}",
    "study.test_on=[A, B]",
)  # fmt: skip
CHOOSING = (
    "arms.near={strategy: one_shot, generators: [b_gan, c_flow], choose: {by: distance, how: weight, fewest_patients: 2}}",
    "arms.gain={strategy: one_shot, generators: [b_gan, c_flow], choose: {by: validation}}",
    "repeats=1",
)
_ID = re.compile(r"[0-9a-f]{16}")


class Asked:
    """Jobs as their ids were made, with the ids in them replaced by what they stand for."""

    def __init__(self):
        self.names = {}
        self.jobs = {}

    def see(self, value, digest):
        if isinstance(value, dict) and set(value) == {"kind", "centre", "body", "data", "inputs", "code", "platform"}:
            content = {
                "kind": value["kind"], "centre": value["centre"], "body": self._named(value["body"]),
                "task": bool(value["data"]), "inputs": [self._named(one) for one in value["inputs"]],
            }  # fmt: skip
            short = hashlib.sha256(canonical_json(content).encode()).hexdigest()[:8]
            self.names[digest] = f"{content['kind']}@{value['centre']}:{short}"
            self.jobs[digest] = content

    def _named(self, value):
        if isinstance(value, str) and _ID.fullmatch(value):
            return self.names.get(value, "<id>")
        if isinstance(value, dict):
            return {k: self._named(v) for k, v in value.items()}
        return [self._named(v) for v in value] if isinstance(value, list | tuple) else value


@pytest.fixture
def asked(monkeypatch):
    seen, real = Asked(), federation.wire.units.digest

    def digest(value):
        found = real(value)
        seen.see(value, found)
        return found

    monkeypatch.setattr(federation.wire.units, "digest", digest)
    return seen


def check(name, asked, record, golden):
    sent = Counter(canonical_json(job) for job in asked.jobs.values())
    jobs = {}
    for job in sorted(asked.jobs.values(), key=canonical_json):
        entry = jobs.setdefault(f"{job['kind']}@{job['centre']}", {"jobs": 0, "first": job, "digest": hashlib.sha256()})
        entry["jobs"] += 1
        entry["digest"].update(canonical_json(job).encode())
    for entry in jobs.values():
        entry["digest"] = entry["digest"].hexdigest()[:16]
    assert sent
    golden(f"{name}.jobs.json", jobs)
    text = (record.folder / "results.csv").read_text()
    place = f"{processor('cpu')}, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}"
    return text, place


def results_as_recorded(name, text, place, golden_file):
    recorded_at, _, recorded = golden_file.read_text().partition("\n")
    if recorded_at == place:
        assert text == recorded
        return
    # Another kind of processor: other last bits, and so in a small test set another order of two cases.
    rows, expected = (list(csv.DictReader(part.splitlines())) for part in (text, recorded))
    assert len(rows) == len(expected)
    for row, other in zip(rows, expected, strict=True):
        a, b = row.pop("value"), other.pop("value")
        assert row == other
        assert (a == "") == (b == "") and (a == "" or abs(float(a) - float(b)) <= 0.35)


@pytest.mark.parametrize("name", ["tiny", "federated"])
def test_jobs_and_results(name, tiny, federated, conduct_in_process, asked, golden, tmp_path):
    scenario = tiny(*CHOOSING) if name == "tiny" else federated(*MORE)
    done, record = conduct_in_process(scenario, tmp_path / "run")
    assert done, record.events()[-5:]
    text, place = check(name, asked, record, golden)
    file = golden.folder / f"{name}.results.csv"
    if golden.updating:
        file.write_text(f"{place}\n{text}")
    results_as_recorded(name, text, place, file)
