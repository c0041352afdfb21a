"""The house: package names that nobody else installs, imports that point down, and files that the bundle must take."""

import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from federation.wire.code_digest import ALL, code_digest, package_folder

CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGES = [*ALL, "polycentre"]


def test_no_other_distribution_supplies_our_package_names():
    suppliers = packages_distributions()
    assert {package: set(suppliers.get(package, [])) - {"polycentre"} for package in PACKAGES} == dict.fromkeys(
        PACKAGES, set()
    )
    assert [package_folder(package) for package in PACKAGES] == [CHECKOUT / package for package in PACKAGES]


def test_imports_point_down_only():
    lint_imports = Path(sys.executable).with_name("lint-imports")
    if not lint_imports.exists():
        pytest.skip("import-linter is not installed (pip install -e '.[dev]')")
    done = subprocess.run([lint_imports], cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_every_package_is_declared():
    tool = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]
    assert {name.rstrip("*") for name in tool["setuptools"]["packages"]["find"]["include"]} == set(PACKAGES)
    assert set(tool["mypy"]["packages"]) == set(tool["importlinter"]["root_packages"]) == set(PACKAGES)


def test_flowers_bundle_takes_the_code():
    """Flower's bundle honours .gitignore: a line `models/` or `data*` there would leave packages out."""
    ignored = subprocess.run(
        ["git", "check-ignore", "--no-index", *(f"{p}/x.py" for p in PACKAGES), "scenarios/demo.yaml"],
        cwd=CHECKOUT, capture_output=True, text=True,
    )  # fmt: skip
    assert ignored.returncode == 1, f"ignored: {ignored.stdout}"


def test_the_code_digest_changes_with_the_code(tmp_path):
    for package in ("a", "b"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "x.py").write_text("1")
    first = code_digest(("a", "b"), tmp_path)
    code_digest.cache_clear()
    (tmp_path / "b" / "x.py").write_text("2")
    assert code_digest(("a", "b"), tmp_path) != first
    code_digest.cache_clear()
