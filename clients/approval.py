"""The studies that a centre has approved: resolved scenarios in `<workspace>/approved`, each named by its hash.

The folder is the only list: `polycentre centre approve` adds to it, `revoke` takes from it, and a job whose study is not
there is refused.
"""

from __future__ import annotations

from pathlib import Path

from basics.atomic_files import write_text
from basics.private_files import make_private_folder
from clients.node import Refusal
from federation.wire.units import scenario_digest


class Approvals:
    """The approved studies of one centre.

    Args:
        workspace: of the centre.
    """

    def __init__(self, workspace: Path):
        self._folder = workspace / "approved"

    def add(self, resolved: str) -> str:
        """Approve a resolved scenario (`scenarios.reader.resolved_yaml`); returns its hash."""
        digest = scenario_digest(resolved)
        make_private_folder(self._folder.parent)
        make_private_folder(self._folder)
        write_text(self._file(digest), resolved)
        return digest

    def remove(self, digest: str) -> bool:
        """Take an approval back; False where there was none."""
        try:
            self._file(digest).unlink()
        except FileNotFoundError:
            return False
        return True

    def digests(self) -> list[str]:
        """Hashes of the approved studies."""
        return sorted(file.stem for file in self._folder.glob("*.yaml") if not file.name.startswith("."))

    def read(self, digest: str) -> str:
        """The resolved scenario of an approved study.

        Raises:
            Refusal: it is not approved, or the file is no longer what was approved.
        """
        if digest not in self.digests():  # also what keeps a path in the place of a hash out
            raise Refusal("study_not_approved", scenario=digest[:64])
        text = self._file(digest).read_text(encoding="utf-8")
        if scenario_digest(text) != digest:
            raise Refusal("approval_altered", scenario=digest)
        return text

    def _file(self, digest: str) -> Path:
        return self._folder / f"{digest}.yaml"
