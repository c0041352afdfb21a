"""A node as the local half of a strategy sees it; see `strategies.centre_side`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from basics.atomic_files import write_text
from basics.csv_table import to_csv
from clients import cohorts, member_keys
from clients.node import Node, Refusal, device_for, platform_of
from clients.policy import minimums_of
from data_partitions import SOURCES, DataError, PatchDataset, PatchTask, build_patches
from federation.secure_sum.member import Signer, SumMember
from federation.secure_sum.rules import Session, SumRefused
from federation.wire.arrays import arrays_digest
from federation.wire.job import Job, canonical_json, plain_name
from metrics.near_copies import NearCopies, near_copies
from models import Precision, probe_precision
from reports.samples import save_grid
from strategies.bodies import OfTask, OwnData
from strategies.centre_side import Draw, PrecisionSetting, Progress, labels_in

# Images of each class, beside those that would leave, in which near copies are looked for.
COPIES_LOOKED_FOR = 128


@dataclass(frozen=True)
class NodeSide:
    """What one job may use of its node."""

    node: Node
    job: Job

    @property
    def centre(self) -> str:
        return self.node.centre

    @property
    def label(self) -> str:
        return self.job.label

    @property
    def deployed(self) -> bool:
        return self.node.deployed

    @property
    def fewest_patients(self) -> int:
        return minimums_of(self.node).sum_patients if self.node.deployed else 0

    def hold_cohort(
        self, one_each: PatchDataset, rows: np.ndarray, first: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, bool]:
        if not self.node.deployed:
            return rows, first, False
        return cohorts.hold(self.node, one_each, rows, first, self.fewest_patients)

    def patches(self, body: OfTask) -> PatchDataset:
        return load_patches(self.node, body, body.task)

    def progress(self) -> Progress:
        return self.node.progress(self.job.unit, self.job.label)

    def read_pool(self, unit: str) -> tuple[np.ndarray, np.ndarray]:
        return self.node.read_pool(unit)

    def write_pool(self, pixels: np.ndarray, labels: np.ndarray) -> None:
        self.node.write_pool(self.job.unit, pixels, labels)

    def check_copies(self, own: PatchDataset, draw: Draw, preview: np.ndarray, labels: np.ndarray) -> None:
        allowed = minimums_of(self.node).near_copies
        if not self.node.deployed or allowed == 1:
            return
        drawn, of_class = draw(COPIES_LOOKED_FOR, "near copies")
        made, made_labels = np.concatenate([preview, drawn]), np.concatenate([labels, of_class])
        found = NearCopies(0, 0)
        for label in labels_in(own):
            part = own.select(labels=(label,))
            found += near_copies(made[made_labels == label], part.stored(), part.table["patient"].to_numpy())
        self.node.log(f"{self.label} [{self.job.unit}]: {found.near} of {found.images} images are near copies")
        if found.more_than(allowed):
            raise Refusal("near_copies", allowed=allowed)

    def sign(self, what: str, about: Sequence[Any], arrays: Mapping[str, np.ndarray]) -> str:
        if self.node.file is None:
            return ""
        return member_keys.sign(self.node.file.key, what, self._signed(about, arrays)).hex()

    def verify(
        self, centre: str, what: str, about: Sequence[Any], arrays: Mapping[str, np.ndarray], signature: str
    ) -> None:
        if self.node.file is None:
            return
        try:
            given = bytes.fromhex(signature)
        except ValueError:
            given = b""
        member_keys.verify(self.node.file.members, centre, what, self._signed(about, arrays), given)

    def _signed(self, about: Sequence[Any], arrays: Mapping[str, np.ndarray]) -> bytes:
        """Of one study only: what was signed in another one says nothing in this."""
        return canonical_json([self.job.scenario, list(about), arrays_digest(arrays)]).encode()

    def sum_member(self, of: str, members: Sequence[str], number: int, session: str) -> SumMember:
        file = self.node.file
        if file is None:
            raise SumRefused("this node has no centre.yaml, so no key to sign with")
        unknown = [name for name in members if name != self.centre and name not in file.members]
        if unknown:
            raise member_keys.BadSignature(unknown[0], "a secure sum")
        signer = Signer(
            self.centre,
            lambda purpose, content: member_keys.sign(file.key, purpose, content),
            lambda name, purpose, content, signature: member_keys.verify(
                file.members, name, purpose, content, signature
            ),
        )
        return SumMember(self.node.kept / "sums", signer, Session(self.job.scenario, of, number, session), members)

    # -- for the survey ------------------------------------------------------------------------------------------

    def make_patches(self, body: OwnData, task: PatchTask) -> PatchDataset:
        progress = self.node.progress(self.job.unit, f"patches for {task.name}")
        try:
            return load_patches(self.node, body, task, progress)
        except DataError as error:
            self._write_problems(error)
            raise

    def _write_problems(self, error: DataError) -> None:
        """All faults of this centre's data, one line each; they name files and rows and stay in the workspace."""
        file = self.node.workspace / "problems.csv"
        rows = [{"kind": problem.code, "what": problem.text} for problem in error.problems]
        write_text(file, to_csv(rows, ("kind", "what")))
        self.node.log(f"{self.label} [{self.job.unit}]: {len(rows)} problems of the data, all of them listed in {file}")

    def digest_key(self) -> bytes:
        return self.node.secret()

    def device(self, setting: str) -> str:
        return device_for(setting)

    def platform(self, device: str) -> str:
        return platform_of(device)

    def precision(self, spec: Mapping[str, Any], device: str, setting: PrecisionSetting) -> Precision:
        return probe_precision(spec, device=device, setting=setting, cache=self.node.cache)

    def keep_pictures(self, name: str, images: np.ndarray) -> None:
        save_grid(self.node.workspace / "samples" / f"{plain_name(name, 'task')}.png", images, columns=16)


def load_patches(node: Node, body: OwnData, task: PatchTask, progress: Progress | None = None) -> PatchDataset:
    """The patches of a task: made once, then opened from the cache."""
    source: Any = TypeAdapter(SOURCES[body.data["source"]]).validate_python(body.data)
    return build_patches(
        source, task, body.split, centre=node.centre, seed=body.data_seed, cache=node.cache, on_progress=progress
    )
