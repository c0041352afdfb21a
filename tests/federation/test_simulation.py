"""The settings that Flower and Ray get for a simulation, here and on a cluster; nothing starts."""

import pytest

from federation.flower.flower_command import FlowerCommand
from federation.flower.ray_cluster import WorkerShare
from federation.flower.simulation import SimulationRuntime


@pytest.fixture
def settings_of(monkeypatch, tmp_path):
    """Function: the federation's configuration that `flwr run` gets, as a dictionary, and the environment of Ray."""

    def submit(address, share):
        asked = []
        monkeypatch.setattr(
            FlowerCommand, "submit", lambda self, app, run_config, federation: asked.append(federation) or "1"
        )
        runtime = SimulationRuntime(tmp_path, tmp_path, address)
        try:
            runtime.submit({}, nodes=4, workers=2, share=share)
            environment = {
                k: v for k, v in runtime._processes.environment.items() if k in ("RAY_ADDRESS", "RAY_TMPDIR")
            }
        finally:
            runtime.stop()
        return dict(setting.split("=") for setting in asked[0].split()), environment

    monkeypatch.setenv("RAY_ADDRESS", "somebody:6379")
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    return submit


def test_a_ray_of_its_own_has_a_cpu_for_each_worker(settings_of):
    settings, environment = settings_of(None, WorkerShare(1))
    assert settings == {
        "num-supernodes": "4", "client-resources-num-cpus": "1", "init-args-num-cpus": "2", "init-args-log-to-driver": "false",
    }  # fmt: skip
    assert list(environment) == ["RAY_TMPDIR"], "the cluster of the user's shell is left alone"


def test_a_cluster_keeps_its_cpus_and_its_folder(settings_of):
    settings, environment = settings_of("10.0.0.1:6379", WorkerShare(8, 0.5))
    assert settings == {
        "num-supernodes": "4", "client-resources-num-cpus": "8", "client-resources-num-gpus": "0.5",
        "init-args-log-to-driver": "false",
    }  # fmt: skip
    assert environment == {"RAY_ADDRESS": "10.0.0.1:6379"}
