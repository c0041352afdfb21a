"""Golden files: what a study asks, predicts, shows and finds, as it was when they were written.

`POLYCENTRE_UPDATE_GOLDEN=1 python -m pytest tests/golden` writes them anew; the diff is then to be read line by line.
"""

import json
import os
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "files"


@pytest.fixture(scope="session")
def golden():
    """Function: assert that a value (JSON, or text) is that of a golden file."""

    def check(name, value):
        file = FOLDER / name
        text = (
            value if isinstance(value, str) else json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        )
        if check.updating:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        found = file.read_text(encoding="utf-8")
        if isinstance(value, str):
            assert value == found
        else:
            assert json.loads(text) == json.loads(found)

    check.folder, check.updating = FOLDER, bool(os.environ.get("POLYCENTRE_UPDATE_GOLDEN"))
    return check
