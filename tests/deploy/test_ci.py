""".ci/run on a machine whose other programs are stand-ins: Chromium is fetched where it may be, and never ends the run; an audit
that got no answer does not end it either, but is not taken for one that found nothing."""

import shutil
import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
AUDITED = "pip-audit: the locks hold no version with a known vulnerability"
NOT_AUDITED = "NOT AUDITED for known vulnerabilities: pip-audit did not get an answer for every package"
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
    done, log = ci_run(tmp_path, user=user, apt_get=apt_get, chromium=chromium)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:-1] == [*said, "make lint", "make sbom", AUDITED, "make test"], (
        "no Docker engine: said in the last line"
    )
    assert log == asked


@pytest.mark.parametrize(
    ("audit", "status", "said"),
    [
        ("echo No known vulnerabilities found", 0, [AUDITED, "make test"]),
        ("echo Found 1 known vulnerability in 1 package; exit 1", 1, ["Found 1 known vulnerability in 1 package"]),
        (
            "echo Found 12 known vulnerabilities in 3 packages; exit 1",
            1,
            ["Found 12 known vulnerabilities in 3 packages"],
        ),
        ("echo ray: could not be audited; exit 1", 0, [NOT_AUDITED, "ray: could not be audited", "make test"]),
        ("exit 124", 0, [NOT_AUDITED, "", "make test"]),
    ],
    ids=["nothing found", "one found", "some found", "no answer", "too slow"],
)
def test_an_audit_without_an_answer_is_not_taken_for_one_that_found_nothing(audit, status, said, tmp_path):
    done, _ = ci_run(tmp_path, chromium=True, audit=audit)
    lines = done.stdout.splitlines()
    assert done.returncode == status and lines[2 : 2 + len(said)] == said
    assert ("make test" in lines) == (status == 0)


def ci_run(tmp_path, user="0", apt_get=None, chromium=False, audit="true"):
    """(what .ci/run ended with, what it asked of apt-get)"""
    programs, log = tmp_path / "bin", tmp_path / "asked"
    programs.mkdir()
    log.touch()

    def program(name, script):
        (programs / name).write_text(f"#!/bin/bash\n{script}\n")
        (programs / name).chmod(0o755)

    for name in ("bash", "dirname", "timeout"):
        (programs / name).symlink_to(shutil.which(name))
    program("id", f"echo {user}")
    program("make", f"if [ $1 = audit ]; then {audit}; else echo make $*; fi")
    if apt_get is not None:
        program("apt-get", f"echo noise; echo $* >> {log}; exit {apt_get}")
    if chromium:
        program("chromium", "true")
    (tmp_path / ".ci").mkdir()
    shutil.copy(CHECKOUT / ".ci" / "run", tmp_path / ".ci" / "run")
    done = subprocess.run(
        [tmp_path / ".ci" / "run"], env={"PATH": str(programs)}, capture_output=True, text=True, timeout=60
    )
    return done, log.read_text().splitlines()
