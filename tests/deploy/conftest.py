"""A real Docker engine, where there is one, with the image built and the trial of docker-compose.yml up."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from federation.flower.processes import free_ports

CHECKOUT = Path(__file__).resolve().parents[2]
COPIED = ("Dockerfile", ".dockerignore", ".gitignore", "docker-compose.yml", "pyproject.toml", "LICENSE", "README.md",
          "requirements.lock", "requirements-node-cpu.lock", "requirements-node-cuda.lock",
          "polycentre", "server", "clients", "strategies", "federation", "scenarios", "models", "data_partitions", "metrics",
          "reports", "basics", "deploy", "deployments")  # fmt: skip


def quietly(*command, timeout=60, **options):
    """(status, output) of a command; status 127 where it does not exist."""
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout, **options
        )
    except FileNotFoundError:
        return 127, f"no {command[0]}"
    return done.returncode, done.stdout


class Compose:
    """docker-compose.yml in a copy of the checkout, as a project of its own."""

    def __init__(self, folder, command):
        self.folder, self._command = folder, command
        self.project = f"polycentre-test-{os.getpid()}"
        (self.operator_port,) = free_ports(1)
        self.environment = os.environ | {
            "POLYCENTRE_OPERATOR_PORT": str(self.operator_port),
            "POLYCENTRE_VERSION": f"test-{os.getpid()}",
            "COMPOSE_PROJECT_NAME": self.project,
        }
        self.image = f"polycentre:test-{os.getpid()}"

    def __call__(self, *arguments, timeout=120, check=True):
        status, out = quietly(*self._command, *arguments, cwd=self.folder, env=self.environment, timeout=timeout)
        assert status == 0 or not check, out[-3000:]
        return out

    def container(self, service):
        return self("ps", "-q", service).split()[-1]

    def docker(self, *arguments, timeout=60, check=True):
        status, out = quietly("docker", *arguments, timeout=timeout)
        assert status == 0 or not check, out
        return out

    def inside(self, service, *command):
        """(status, output) of a command in a service's container."""
        return quietly("docker", "exec", self.container(service), *command)

    def host(self, *command):
        """(status, output) of a command on the machine that the engine runs on."""
        return quietly(*command)

    def health(self, service):
        return json.loads(self.docker("inspect", self.container(service)))[0]["State"].get("Health", {}).get("Status")

    def run(self, scenario, out, *arguments):
        """Start `polycentre run` on the operator's side, in the folder where deployments/ is."""
        command = [sys.executable, "-m", "polycentre", "run", str(scenario), "--deployment", "hospitals", "--out", str(out),
                   "--cache", str(self.folder / "cache"), *arguments]  # fmt: skip
        return subprocess.Popen(
            command,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            stdin=subprocess.DEVNULL,
        )

    def nodes_online(self):
        status, out = quietly(sys.executable, "-m", "polycentre", "deploy", "nodes", "hospitals", cwd=self.folder)
        return sum("online" in line for line in out.splitlines()) if status == 0 else 0

    def wait_for_nodes(self, count, timeout_s=120.0):
        deadline = time.monotonic() + timeout_s
        while self.nodes_online() < count:
            assert time.monotonic() < deadline, self("logs", "--tail=30")
            time.sleep(1.0)


@pytest.fixture(scope="session")
def compose_command():
    status, out = quietly("docker", "info")
    if status != 0:
        pytest.skip(f"no Docker engine answers here ({out.strip().splitlines()[-1][:100] if out.strip() else status})")
    for command in (["docker", "compose"], ["docker-compose"]):
        if quietly(*command, "version")[0] == 0:
            return command
    pytest.skip("neither `docker compose` nor docker-compose is installed")


@pytest.fixture(scope="session")
def compose(compose_command, tmp_path_factory):
    """The trial, built and up; removed with its volumes and its image afterwards."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in COPIED:
        source = CHECKOUT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "hospitals", "local")
            shutil.copytree(source, folder / name, ignore=ignored)
        else:
            shutil.copy(source, folder / name)
    trial = Compose(folder, compose_command)
    try:
        trial("build", timeout=1800)
        trial("up", "-d", timeout=300)
        file = folder / "deployments" / "hospitals" / "deployment.yaml"
        # The port is the one of this test, which nothing else on the machine uses.
        file.write_text(file.read_text().replace("8001", str(trial.operator_port)))
        trial.wait_for_nodes(3)
        yield trial
    finally:
        if os.environ.get("POLYCENTRE_TEST_KEEP") != "1":
            trial("down", "-v", "--remove-orphans", check=False)
            quietly("docker", "rmi", trial.image)
