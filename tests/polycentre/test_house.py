"""The house: package names that nobody else installs, imports that point down, and files that the bundle must take."""

import ast
import graphlib
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from federation.wire.code_digest import ALL, code_digest, package_folder
from strategies import KINDS, STRATEGIES

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


def imports_of(package, root=CHECKOUT):
    """Module -> the modules that it imports anywhere, also inside functions, for the modules of one package.

    `from a import b` is an import of module a.b where there is one, and of a otherwise.
    """
    files = {}
    for file in sorted((root / package).rglob("*.py")):
        parts = file.relative_to(root).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    found = {}
    for module, file in files.items():
        found[module] = set()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found[module].update(name.name for name in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, f"{module}: a relative import"
                inner = {f"{node.module}.{name.name}" for name in node.names}
                found[module] |= {name if name in files else str(node.module) for name in inner}
        found[module] &= set(files)
    return found


def longer_than(lines, root):
    """Modules with more lines, and no word in their docstring of why."""
    files = {file: file.read_text(encoding="utf-8") for package in PACKAGES for file in (root / package).rglob("*.py")}
    return [
        str(file.relative_to(root)) for file, text in files.items()
        if len(text.splitlines()) > lines and "Longer than most files" not in (ast.get_docstring(ast.parse(text)) or "")
    ]  # fmt: skip


def test_long_modules_say_why():
    assert longer_than(300, CHECKOUT) == []
    assert "strategies/delivery.py" in longer_than(50, CHECKOUT), "the test would not notice one"


@pytest.mark.parametrize("package", PACKAGES)
def test_no_modules_import_each_other_in_a_circle(package):
    try:
        graphlib.TopologicalSorter(imports_of(package)).prepare()
    except graphlib.CycleError as circle:
        pytest.fail(" imports ".join(reversed(circle.args[1])))


def test_a_circle_is_found_even_inside_a_function(tmp_path):
    (tmp_path / "room" / "inner").mkdir(parents=True)
    (tmp_path / "room/__init__.py").write_text("from room.inner import a\nTABLE = a\n")
    (tmp_path / "room/inner/__init__.py").write_text("")
    (tmp_path / "room/inner/a.py").write_text("def table():\n    from room import TABLE\n    return TABLE\n")
    assert imports_of("room", tmp_path) == {"room": {"room.inner.a"}, "room.inner": set(), "room.inner.a": {"room"}}
    with pytest.raises(graphlib.CycleError):
        graphlib.TopologicalSorter(imports_of("room", tmp_path)).prepare()


def test_every_benchmark_can_be_imported():
    names = sorted(file.stem for file in (CHECKOUT / "bench").glob("*.py"))
    code = f"import importlib\nfor name in {names}: importlib.import_module('bench.' + name)"
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode == 0 and len(names) > 10, done.stderr


def test_every_package_is_declared():
    tool = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]
    assert {name.rstrip("*") for name in tool["setuptools"]["packages"]["find"]["include"]} == set(PACKAGES)
    assert set(tool["mypy"]["packages"]) == set(tool["importlinter"]["root_packages"]) == set(PACKAGES)


def production():
    """Every production file and its text."""
    return [(file, file.read_text()) for package in PACKAGES for file in (CHECKOUT / package).rglob("*.py")]


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_name_of_a_kind_stands_in_one_production_file(kind):
    files = [str(file.relative_to(CHECKOUT)) for file, text in production() if re.search(rf"\b{kind}\b", text)]
    assert len(files) == 1, files


def test_no_other_room_asks_of_which_strategy_an_arm_is():
    """What differs between strategies is a method of theirs, or follows from what they declare."""
    arms = "|".join(strategy.keys.__name__ for strategy in STRATEGIES.values())
    pattern = re.compile(rf"isinstance\([^)]*\b({arms}|\w*Arm)\b|\b({arms})\b")
    found = [
        str(file.relative_to(CHECKOUT)) for file, text in production()
        if not file.is_relative_to(CHECKOUT / "strategies") and pattern.search(text)
    ]  # fmt: skip
    assert not found


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
