"""What a job and a node import: every job is a new process on a deployed node, so each needless import slows every message."""

import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
# Seconds each, and needed by no job, by few, or on the server only.
HEAVY = {"matplotlib", "opacus", "ray", "sklearn", "scipy.stats", "timm", "torchvision"}


@pytest.mark.parametrize(
    ("module", "needless"),
    [
        ("clients.app", HEAVY | {"scenarios", "torch._dynamo"}),
        ("clients.supernode", HEAVY | {"torch", "pandas", "pydicom", "scipy"}),  # which computes nothing itself
    ],
)
def test_nothing_heavy_is_imported_before_it_is_needed(module, needless):
    code = f"import {module}, sys; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert module in loaded
    assert not needless & loaded, f"{module} imports {sorted(needless & loaded)}; import it where it is needed"
