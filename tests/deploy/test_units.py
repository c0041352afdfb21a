"""The units and the hospital's compose file: what they promise, and that they start what the code starts."""

import configparser
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from federation.flower.superlink import superlink_command

CHECKOUT = Path(__file__).resolve().parents[2]
SYSTEMD = CHECKOUT / "deploy" / "systemd"
UNITS = ("polycentre-node", "polycentre-superlink")
PREFIX = "/opt/polycentre/.venv/bin"


def service_of(name):
    parser = configparser.ConfigParser(interpolation=None, comment_prefixes=("#",), strict=False)
    parser.optionxform = str
    parser.read_string((SYSTEMD / f"{name}.service").read_text().replace("\\\n", " "))
    return dict(parser["Service"])


def options_of(words):
    """{option: value} of a command line; --x=y and --x y are the same."""
    found, last = {}, None
    for word in words:
        if word.startswith("--"):
            last, _, value = word.partition("=")
            found[last] = value
        else:
            found[last] = word
    return found


@pytest.mark.parametrize("name", UNITS)
def test_a_service_may_do_no_more_than_it_needs(name):
    service = service_of(name)
    for key in (
        "ProtectHome",
        "PrivateTmp",
        "PrivateDevices",
        "NoNewPrivileges",
        "RestrictNamespaces",
        "RestrictSUIDSGID",
    ):
        assert service[key] == "yes", key
    assert service["ProtectSystem"] == "strict" and "ReadWritePaths" not in service
    assert service["CapabilityBoundingSet"] == "" and service["User"] not in ("", "root")
    assert service["StateDirectoryMode"] == "0700" and service["UMask"] == "0077" and service["MemoryMax"]
    assert set(service["RestrictAddressFamilies"].split()) == {"AF_INET", "AF_INET6", "AF_UNIX"}


@pytest.mark.parametrize("name", UNITS)
def test_stopping_a_service_ends_all_of_its_processes_at_once(name):
    service = service_of(name)
    assert (service["KillMode"], service["KillSignal"]) == ("control-group", "SIGTERM")
    assert int(service["TimeoutStopSec"]) <= 20 and service["Restart"] == "on-failure"


def test_a_node_is_started_by_the_projects_own_command_and_not_again_where_its_settings_are_wrong():
    service = service_of("polycentre-node")
    assert shlex.split(service["ExecStart"]) == [f"{PREFIX}/polycentre", "centre", "run", "/etc/polycentre/centre.yaml"]
    assert service["RestartPreventExitStatus"] == "2"


def superlinks():
    compose = yaml.safe_load((CHECKOUT / "docker-compose.yml").read_text())
    yield "unit", shlex.split(service_of("polycentre-superlink")["ExecStart"])[4:], "/var/lib/polycentre-superlink"
    yield "compose", compose["services"]["superlink"]["command"], "/var/lib/polycentre"


@pytest.mark.parametrize(("words", "state"), [(w, s) for _, w, s in superlinks()], ids=[n for n, _, _ in superlinks()])
def test_a_superlink_is_started_with_all_that_the_code_starts_one_with(words, state):
    folder = Path("/etc/polycentre")
    wanted = options_of(superlink_command(folder, folder / "operator.secret", Path(state, "superlink.db"))[3:])
    given = options_of(words)
    assert wanted.items() <= given.items()
    assert set(given) - set(wanted) == {
        "--host", "--port", "--operator-host", "--operator-port", "--disable-runtime-dependency-installation",
    }  # fmt: skip
    assert given["--operator-host"] not in ("0.0.0.0", "::", "")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
@pytest.mark.parametrize("name", UNITS)
def test_systemd_understands_the_unit(name, tmp_path):
    # It looks whether the program is there.
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    text = (SYSTEMD / f"{name}.service").read_text()
    unit = tmp_path / f"{name}.service"
    unit.write_text(text.replace(f"{PREFIX}/polycentre", str(program)).replace(f"{PREFIX}/python", str(program)))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and name not in done.stderr, done.stderr


def test_a_hospitals_node_is_confined_and_nobody_can_connect_to_it():
    compose = yaml.safe_load((CHECKOUT / "deploy" / "hospital-compose.yml").read_text())
    (node,) = compose["services"].values()
    assert node["read_only"] and node["cap_drop"] == ["ALL"] and node["security_opt"] == ["no-new-privileges:true"]
    assert node["user"] == "1000:1000" and node["mem_limit"] and node["pids_limit"] and node["init"]
    assert not {"ports", "privileged", "network_mode", "devices", "build"} & set(node)
    places = {entry.removesuffix(":ro").rsplit(":", 1)[1]: entry.endswith(":ro") for entry in node["volumes"]}
    assert places == {
        "/etc/polycentre": True, "/var/lib/polycentre": False, "/var/lib/polycentre-anchor": False, "/data": True,
    }  # fmt: skip


def test_the_anchor_of_the_guides_is_where_units_and_containers_may_write():
    """centre.yaml lies where the node may not write, so its default place for the anchor is none here."""
    guide = (CHECKOUT / "deploy" / "README.md").read_text()
    tree = yaml.safe_load(guide.partition("## centre.yaml")[2].partition("```yaml\n")[2].partition("```")[0])
    workspace, anchor = Path(tree["workspace"]), Path(tree["log"]["anchor"])
    assert not anchor.is_relative_to(workspace)
    states = [Path("/var/lib", name) for name in service_of("polycentre-node")["StateDirectory"].split()]
    assert states == [workspace, anchor.parent]
    for name in ("docker-compose.yml", "deploy/hospital-compose.yml"):
        for node in yaml.safe_load((CHECKOUT / name).read_text())["services"].values():
            if node.get("command", [None])[0] == "centre":
                assert str(anchor.parent) in {entry.rsplit(":", 1)[1] for entry in node["volumes"]}
    # A named volume takes over owner and mode of the folder in the image.
    image = (CHECKOUT / "Dockerfile").read_text()
    assert (
        f"chown polycentre:polycentre {workspace} {anchor.parent}" in image
        and f"chmod 700 {workspace} {anchor.parent}" in image
    )


@pytest.mark.parametrize(("file", "base"), [
    ("docker-compose.gpu.yml", "docker-compose.yml"), ("hospital-compose.gpu.yml", "deploy/hospital-compose.yml"),
])  # fmt: skip
def test_a_file_that_gives_gpus_changes_nodes_that_are_there(file, base):
    override = yaml.safe_load((CHECKOUT / "deploy" / file).read_text())["services"]
    services = yaml.safe_load((CHECKOUT / base).read_text())["services"]
    nodes = {name for name, service in services.items() if service.get("command", [None])[0] == "centre"}
    assert set(override) <= set(services)
    with_gpu = {name for name, service in override.items() if "deploy" in service}
    assert with_gpu == nodes
    for name in with_gpu:
        (device,) = override[name]["deploy"]["resources"]["reservations"]["devices"]
        assert device["capabilities"] == ["gpu"]
