"""What docker-compose.yml and Dockerfile promise, read from the files: these need no engine."""

import ast
from pathlib import Path

import pytest
import yaml

from federation.flower.bundle import own_bundle

CHECKOUT = Path(__file__).resolve().parents[2]
NODES = ("node-a", "node-b", "node-c")


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((CHECKOUT / "docker-compose.yml").read_text())


def test_hospitals_share_no_network_and_no_volume(compose):
    for kind in ("networks", "volumes"):
        held = [{str(entry).split(":")[0] for entry in compose["services"][name][kind]} for name in NODES]
        if kind == "volumes":  # the data's default is an empty folder of the checkout
            held = [{entry for entry in entries if not entry.startswith("${")} for entries in held]
        assert all(not a & b for i, a in enumerate(held) for b in held[i + 1 :]), kind
    assert all(compose["networks"][name]["internal"] for name in "abc")


@pytest.mark.parametrize("name", NODES)
def test_a_node_is_confined(name, compose):
    node = compose["services"][name]
    assert node["read_only"] and node["cap_drop"] == ["ALL"] and node["security_opt"] == ["no-new-privileges:true"]
    assert node["mem_limit"] and node["restart"] == "unless-stopped" and node["healthcheck"]["test"]
    assert "ports" not in node and node.get("user", "") != "root" and not node.get("privileged")
    mounts = {entry.rsplit(":", 2 if entry.endswith(":ro") else 1)[1]: entry for entry in node["volumes"]}
    assert all(mounts[place].endswith(":ro") for place in ("/data", "/etc/polycentre"))


def test_the_operators_door_is_published_on_loopback_only(compose):
    published = {name: service.get("ports", []) for name, service in compose["services"].items()}
    assert [entry for entries in published.values() for entry in entries] == [
        "127.0.0.1:${POLYCENTRE_OPERATOR_PORT:-8001}:8001"
    ]


def test_no_secret_is_in_file_or_image(compose):
    for service in compose["services"].values():
        words = str(service.get("environment", {})).lower()
        assert not any(word in words for word in ("secret", "password", "token", "key"))
    ignored = (CHECKOUT / ".dockerignore").read_text().split()
    assert ignored[ignored.index("*") :][0] == "*" and "!deployments" not in ignored and "!runs" not in ignored
    assert "USER polycentre" in (CHECKOUT / "Dockerfile").read_text()


def test_the_image_holds_the_packages_that_the_bundle_holds():
    """Else a node's own bundle would not be the one that the operator's checkout makes, and no study would be approved."""
    import tomllib

    patterns = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["fab-include"]
    packages = {pattern.strip("/").split("/")[0] for pattern in patterns}
    copied = {
        words[1]
        for line in (CHECKOUT / "Dockerfile").read_text().splitlines()
        if (words := line.split())[:1] == ["COPY"]
    }
    copied |= {"LICENSE", "README.md"} & set((CHECKOUT / "Dockerfile").read_text().split())
    assert packages <= copied
    let_in = {line[1:] for line in (CHECKOUT / ".dockerignore").read_text().split() if line.startswith("!")}
    assert copied - {"--chown=polycentre"} <= let_in, "the build would not find these"
    # A pattern without a slash would take files of that name in every folder.
    assert {name.split("/")[0] for name in own_bundle(CHECKOUT)} == packages | {"pyproject.toml", ".info"}


def test_the_trial_in_containers_is_built_from_all_that_the_image_copies():
    tree = ast.parse((CHECKOUT / "tests" / "deploy" / "conftest.py").read_text())
    (copied,) = [
        ast.literal_eval(n.value) for n in tree.body if isinstance(n, ast.Assign) and n.targets[0].id == "COPIED"
    ]
    lines = [
        line.split()[1:-1] for line in (CHECKOUT / "Dockerfile").read_text().splitlines() if line.startswith("COPY ")
    ]
    assert {name for names in lines for name in names if not name.startswith("--")} <= set(copied)


def test_the_apptainer_image_copies_the_packages_that_the_image_copies():
    """That file was never built, so at least what it names is compared."""
    image = (CHECKOUT / "Dockerfile").read_text().splitlines()
    wanted = {name for line in image if line.startswith("COPY ") for name in line.split()[1:-1]}
    section = (CHECKOUT / "deploy/slurm/polycentre.def").read_text().partition("%files\n")[2].partition("\n\n")[0]
    copied = dict(line.split() for line in section.splitlines())
    assert {name for name in wanted if "node" not in name} <= set(copied)
    assert all(target == f"/opt/polycentre/{name}" for name, target in copied.items())
