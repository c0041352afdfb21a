""".ci/run on a machine whose other programs are stand-ins: Chromium is fetched where it may be, and never ends the run."""

import shutil
import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
SKIPPED = "Chromium is not installed and cannot be installed here: the browser tests are skipped"


@pytest.mark.parametrize(
    ("user", "apt_get", "chromium", "said", "asked"),
    [
        ("0", 0, False, [], ["-qq update", "-qq install --yes --no-install-recommends chromium"]),
        ("0", 100, False, [SKIPPED], ["-qq update"]),
        ("0", None, False, [SKIPPED], []),
        ("1000", 0, False, [SKIPPED], []),
        ("0", 0, True, [], []),
    ],
    ids=["root", "apt-get fails", "no apt-get", "not root", "there already"],
)
def test_chromium_is_installed_where_it_may_be(user, apt_get, chromium, said, asked, tmp_path):
    programs, log = tmp_path / "bin", tmp_path / "asked"
    programs.mkdir()
    log.touch()

    def program(name, script):
        (programs / name).write_text(f"#!/bin/bash\n{script}\n")
        (programs / name).chmod(0o755)

    for name in ("bash", "dirname", "timeout"):
        (programs / name).symlink_to(shutil.which(name))
    program("id", f"echo {user}")
    program("make", "echo make $*")
    if apt_get is not None:
        program("apt-get", f"echo noise; echo $* >> {log}; exit {apt_get}")
    if chromium:
        program("chromium", "true")
    (tmp_path / ".ci").mkdir()
    shutil.copy(CHECKOUT / ".ci" / "run", tmp_path / ".ci" / "run")
    done = subprocess.run(
        [tmp_path / ".ci" / "run"], env={"PATH": str(programs)}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:-1] == [*said, "make lint", "make test"], "no Docker engine: said in the last line"
    assert log.read_text().splitlines() == asked
