"""The settings that Flower and Ray get for a simulation, here and on a cluster; nothing starts but where a test says so."""

import re

import psutil
import pytest

from federation.flower.flower_command import FlowerCommand
from federation.flower.processes import kill
from federation.flower.ray_cluster import WorkerShare
from federation.flower.simulation import SimulationRuntime
from federation.flower.superlink import SuperLink
from federation.wire.errors import StudyError


@pytest.fixture
def runtime_at(tmp_path):
    """Function: a runtime with two workers at an address, stopped at the end of the test."""
    made = []

    def make(address=None):
        made.append(SimulationRuntime(tmp_path, tmp_path, 2, address))
        return made[-1]

    yield make
    for runtime in made:
        runtime.stop()


@pytest.fixture
def settings_of(monkeypatch, runtime_at):
    """Function: the federation's configuration that `flwr run` gets, as a dictionary, and the address of Ray."""

    def submit(address, share):
        asked = []
        monkeypatch.setattr(
            FlowerCommand, "submit", lambda self, app, run_config, federation: asked.append(federation) or "1"
        )
        runtime = runtime_at(address)
        runtime.submit({}, nodes=4, share=share)
        return dict(setting.split("=") for setting in asked[0].split()), runtime._processes.environment["RAY_ADDRESS"]

    monkeypatch.setenv("RAY_ADDRESS", "somebody:6379")
    return submit


def test_a_ray_of_its_own_is_joined_on_loopback(settings_of):
    settings, address = settings_of(None, WorkerShare(1))
    assert settings == {
        "num-supernodes": "4", "client-resources-num-cpus": "1", "init-args-log-to-driver": "false",
    }  # fmt: skip
    assert re.fullmatch(r"127\.0\.0\.1:\d+", address), "the cluster of the user's shell is left alone"


def test_a_cluster_keeps_its_cpus_and_its_folder(settings_of):
    settings, address = settings_of("10.0.0.1:6379", WorkerShare(8, 0.5))
    assert settings == {
        "num-supernodes": "4", "client-resources-num-cpus": "8", "client-resources-num-gpus": "0.5",
        "init-args-log-to-driver": "false",
    }  # fmt: skip
    assert address == "10.0.0.1:6379"


def test_a_runtime_ends_with_all_its_processes(runtime_at):
    runtime = runtime_at()
    runtime.start()
    assert runtime.alive
    below = psutil.Process(runtime._ray.pid).children(recursive=True)
    assert any("gcs_server" in process.name() for process in below)
    runtime.stop()
    assert psutil.wait_procs(below, timeout=5)[1] == []
    assert not runtime._processes.home.exists()


def test_a_runtime_without_its_ray_is_not_alive(runtime_at, monkeypatch):
    monkeypatch.setattr(SuperLink, "start_simulation", lambda self, timeout_s: None)
    monkeypatch.setattr(SuperLink, "alive", True)
    runtime = runtime_at()
    runtime.start()
    assert runtime.alive
    below = psutil.Process(runtime._ray.pid).children(recursive=True)
    runtime._ray.kill()
    runtime._ray.wait(10)
    assert not runtime.alive
    kill(below)  # two of them would notice only after a minute that they are alone


def test_a_ray_that_does_not_start_is_said(runtime_at):
    runtime = runtime_at()
    runtime._workers = "many"
    with pytest.raises(StudyError, match=r"Ray ended with status 1; see .*flower\.log"):
        runtime.start()


def test_a_folder_that_is_no_checkout_is_refused(runtime_at, tmp_path):
    with pytest.raises(StudyError, match="is not a checkout of this project") as refusal:
        runtime_at("10.0.0.1:6379").submit({}, nodes=4, share=WorkerShare(1))
    assert refusal.value.exit_status == 2
