"""The studies that a centre has approved: resolved scenarios in `<workspace>/approved`, each named by its hash.

The folder is the only list: `polycentre centre approve` adds to it, `revoke` takes from it, and a job whose study is not
there is refused. Beside each scenario lies until when it may be answered. What the node keeps of a study lies in
`<workspace>/studies/<hash>`: states, pools and answers, which are deleted when no approval covers the study any more, and the
memory of what was answered (`clients.answers`), which stays.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from basics.atomic_files import write_text
from basics.bounded_text import SCENARIO, TextProblem, read_text
from basics.private_files import make_private_folder
from clients.answers import Answers
from clients.node import STUDIES, Refusal
from federation.wire.job import canonical_json
from federation.wire.units import scenario_digest

DAYS = 90


@dataclass(frozen=True)
class Approval:
    """One approved study.

    Attributes:
        resolved: the scenario.
        until: when the approval ends, with a zone.
    """

    digest: str
    resolved: str
    until: datetime


class Approvals:
    """The approved studies of one centre.

    Args:
        workspace: of the centre.
    """

    def __init__(self, workspace: Path):
        self._folder, self._studies = workspace / "approved", workspace / STUDIES

    def add(self, resolved: str, *, days: int = DAYS, again: bool = False, now: datetime | None = None) -> str:
        """Approve a resolved scenario (`scenarios.reader.resolved_yaml`), or approve it for longer; returns its hash.

        Args:
            days: for how long, from now on.
            again: forget what was answered: the study may ask everything once more.
        """
        digest, until = scenario_digest(resolved), (now or datetime.now(UTC)) + timedelta(days=days)
        make_private_folder(self._folder.parent)
        make_private_folder(self._folder)
        if again:
            shutil.rmtree(self._studies / digest, ignore_errors=True)
        Answers(self._studies / digest).begin()
        write_text(self._file(digest), resolved)
        write_text(self._term(digest), canonical_json({"until": until.isoformat(timespec="seconds")}))
        return digest

    def remove(self, digest: str) -> bool:
        """Take an approval back, and delete what the node kept of the study; False where there was none."""
        there = digest in self.digests()
        if there:
            self._file(digest).unlink()
            self._term(digest).unlink(missing_ok=True)
        self.clear()
        return there

    def digests(self) -> list[str]:
        """Hashes of the approved studies, also of those whose time is over."""
        return sorted(file.stem for file in self._folder.glob("*.yaml") if not file.name.startswith("."))

    def answered(self, digest: str) -> int:
        """How many questions of a study were answered.

        Raises:
            Refusal: nobody knows any more.
        """
        return Answers(self._studies / digest).count()

    def read(self, digest: str, now: datetime | None = None) -> Approval:
        """An approved study.

        Raises:
            Refusal: it is not approved, or no longer, or the file is no longer what was approved.
        """
        if digest not in self.digests():  # also what keeps a path in the place of a hash out
            raise Refusal("study_not_approved", scenario=digest[:64])
        try:
            text = read_text(self._file(digest), SCENARIO)
        except (TextProblem, UnicodeDecodeError):
            text = ""
        if scenario_digest(text) != digest:
            raise Refusal("approval_altered", scenario=digest)
        until = self._until(digest)
        if until is None or until < (now or datetime.now(UTC)):
            raise Refusal("approval_ended", scenario=digest)
        return Approval(digest, text, until)

    def clear(self, now: datetime | None = None) -> None:
        """Delete what the node kept of studies that no approval covers, except the memory of what was answered."""
        for folder in self._studies.iterdir() if self._studies.is_dir() else ():
            until = self._until(folder.name) if self._file(folder.name).exists() else None
            if until is not None and until >= (now or datetime.now(UTC)):
                continue
            for kept in folder.iterdir() if folder.is_dir() else ():
                if kept.is_dir():
                    shutil.rmtree(kept, ignore_errors=True)
                elif kept.suffix != ".json":
                    kept.unlink(missing_ok=True)

    def _until(self, digest: str) -> datetime | None:
        """None where nothing says it, as beside approvals of earlier versions."""
        try:
            until = datetime.fromisoformat(json.loads(self._term(digest).read_text(encoding="utf-8"))["until"])
            return until if until.tzinfo is not None else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _file(self, digest: str) -> Path:
        return self._folder / f"{digest}.yaml"

    def _term(self, digest: str) -> Path:
        return self._folder / f"{digest}.until.json"
