"""Locks, constraints.txt and pyproject.toml say the same, and what is built from the locks needs nothing else."""

import json
import re
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

CHECKOUT = Path(__file__).resolve().parents[2]
FULL = "requirements.lock"
NODES = ("requirements-node-cpu.lock", "requirements-node-cuda.lock")
LOCKS = (FULL, *NODES)
# They come with torch's CUDA build, which constraints.txt, of a machine without, does not list.
CUDA = re.compile(r"cuda-|nvidia-|triton$")


def read(name):
    """{package: (version, hashes)} of a lock or of constraints.txt."""
    found = {}
    for entry in re.sub(r"\\\n", " ", (CHECKOUT / name).read_text()).splitlines():
        if entry.strip() and not entry.startswith("#"):
            pin, *hashes = entry.split()
            package, version = pin.split("==")
            assert canonicalize_name(package) not in found, entry
            found[canonicalize_name(package)] = (Version(version), hashes)
    return found


def direct():
    tree = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    project, extras = tree["project"], tree["project"]["optional-dependencies"]
    wanted = [
        *project["dependencies"],
        *extras["dicom-codecs"],
        *extras["spreadsheets"],
        *tree["build-system"]["requires"],
    ]
    return [Requirement(line) for line in wanted]


def left_out():
    lines = (CHECKOUT / "deploy" / "not-in-a-node.txt").read_text().splitlines()
    return {canonicalize_name(line) for line in lines if line and not line.startswith("#")}


@pytest.mark.parametrize("name", LOCKS)
def test_each_file_that_may_be_installed_has_a_hash(name):
    for package, (_, hashes) in read(name).items():
        assert hashes and all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", word) for word in hashes), package


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_has_the_versions_of_constraints_txt(name):
    known = read("constraints.txt")
    for package, (version, _) in read(name).items():
        if not (package not in known and CUDA.match(package)):
            # torch's CPU build has a local version, +cpu.
            assert package in known and version.public == str(known[package][0]), f"{package}: run `make locks`"


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_has_every_direct_dependency_within_its_range(name):
    locked = read(name)
    for requirement in direct():
        package = canonicalize_name(requirement.name)
        assert package in locked and requirement.specifier.contains(locked[package][0]), (
            f"{requirement}: run `make locks`"
        )


def test_a_node_is_built_without_ray_and_a_simulation_with_it():
    assert left_out() == {"ray"}
    assert left_out() <= set(read(FULL))
    for name in NODES:
        assert not left_out() & set(read(name))
        # The audit asks for the full lock alone.
        assert set(read(name)) <= set(read(FULL))
        assert all(version.public == read(FULL)[package][0].public for package, (version, _) in read(name).items())


def test_the_lock_for_cpus_brings_no_cuda_and_the_other_does():
    cpu, cuda = (read(name) for name in NODES)
    assert not [package for package in cpu if CUDA.match(package)] and cpu["torch"][0].local == "cpu"
    assert [package for package in cuda if CUDA.match(package)] and cuda["torch"][0].local is None


IMPORTS = """
import importlib, pkgutil, sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {left_out!r}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Missing())
try:
    import ray
except ModuleNotFoundError:
    pass
else:
    sys.exit("ray can be imported, so this shows nothing")
import clients, models, data_partitions
names = [f"{{p.__name__}}.{{m.name}}" for p in (clients, models, data_partitions) for m in pkgutil.iter_modules(p.__path__)]
for name in [*names, "federation.flower.superlink_server", "federation.flower.superlink_health", "polycentre.command_line",
             "flwr.supernode.cli.flower_supernode"]:
    importlib.import_module(name)
print(len(names))
"""


def test_a_node_and_a_superlink_import_without_what_the_nodes_locks_leave_out():
    code = IMPORTS.format(left_out=left_out())
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 10


@pytest.mark.parametrize("name", LOCKS)
@pytest.mark.skipif(
    find_spec("cyclonedx_py") is None, reason="cyclonedx-bom is not installed; `make install` brings it"
)
def test_the_list_of_what_is_in_a_lock_is_complete(name, tmp_path):
    out = tmp_path / "sbom.json"
    command = [sys.executable, "-m", "cyclonedx_py", "requirements", "--of", "JSON", "-o", str(out), name]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    listed = {
        canonicalize_name(c["name"]): (
            Version(c["version"]),
            sorted(f"--hash=sha256:{h['content']}" for r in c["externalReferences"] for h in r.get("hashes", [])),
        )
        for c in json.loads(out.read_text())["components"]
    }
    assert listed == {package: (version, sorted(hashes)) for package, (version, hashes) in read(name).items()}


def test_the_image_installs_a_lock_and_nothing_that_is_not_in_it():
    text = re.sub(r"\\\n\s*", " ", (CHECKOUT / "Dockerfile").read_text())
    assert f"ARG LOCK={NODES[0]}" in text
    installs = re.findall(r"pip install ([^&]*)", text)
    assert len(installs) == 2
    assert "--require-hashes" in installs[0] and '-r "$LOCK"' in installs[0]
    assert {"--no-index", "--no-deps", "--no-build-isolation"} <= set(installs[1].split())
