"""What a job imports: on a deployed node every job is a new process, so each needless import is paid with every message."""

import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
# Seconds each, and needed by no duty, by few, or on the server only.
HEAVY = {"matplotlib", "opacus", "ray", "sklearn", "scipy.stats", "timm", "torchvision"}


def test_the_client_app_does_not_import_what_only_some_duty_needs():
    code = "import clients.app, sys; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "clients.app" in loaded
    assert not HEAVY & loaded, f"clients.app now imports {sorted(HEAVY & loaded)}; import it in the duty that needs it"
