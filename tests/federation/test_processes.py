"""Processes of a runtime end with it: those that detached themselves, and those whose parent was killed."""

import os
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest

from federation.flower.processes import MARK, OwnProcesses, carrying, free_ports, kill


@pytest.fixture
def processes():
    own = OwnProcesses()
    yield own
    own.stop()


def wait_until(condition, timeout_s=10.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.02)


def test_a_process_is_apart_from_this_one(processes, tmp_path, monkeypatch):
    show = "import os, json; print(json.dumps([os.getcwd(), dict(os.environ)]))"
    processes.start([sys.executable, "-c", show], tmp_path / "log").wait()
    text = (tmp_path / "log").read_text()
    assert text.startswith(f'["{processes.home}"')
    assert f'"FLWR_HOME": "{processes.home}"' in text and '"FLWR_TELEMETRY_ENABLED": "0"' in text


def test_settings_of_the_users_own_flower_do_not_leak_in(monkeypatch):
    for name in ("RAY_ADDRESS", "PYTHONPATH", "FLWR_LOCAL_CONTROL_API_PORT"):
        monkeypatch.setenv(name, "theirs")
    own = OwnProcesses()
    assert "theirs" not in own.environment.values()
    own.stop()


def test_stop_ends_what_detached_itself_or_ignores_sigterm(processes, tmp_path):
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)"
    processes.start([sys.executable, "-c", stubborn], tmp_path / "log")
    processes.start(["sh", "-c", "setsid sleep 600 & exit 0"], tmp_path / "log").wait()
    wait_until(lambda: "ready" in (tmp_path / "log").read_text())
    wait_until(lambda: len(carrying(MARK, str(processes.home))) == 2)
    processes.stop()
    assert carrying(MARK, str(processes.home)) == [] and not processes.home.exists()


def test_stop_lets_a_process_put_its_things_in_order(processes, tmp_path):
    tidy = (
        "import sys, signal, time; signal.signal(signal.SIGTERM, lambda *_: (print('tidied'), sys.exit())); "
        "print('ready', flush=True); time.sleep(600)"
    )
    processes.start([sys.executable, "-c", tidy], tmp_path / "log")
    wait_until(lambda: "ready" in (tmp_path / "log").read_text())
    processes.stop()
    assert "tidied" in (tmp_path / "log").read_text()


def test_processes_of_another_runtime_are_left_alone(processes, tmp_path):
    other = OwnProcesses()
    other.start(["sleep", "600"], tmp_path / "log")
    processes.start(["sleep", "600"], tmp_path / "log")
    processes.stop()
    assert len(carrying(MARK, str(other.home))) == 1
    other.stop()


def test_kill_takes_the_processes_of_one_value(processes, tmp_path):
    for node in ("A", "B"):
        processes.start(["sleep", "600"], tmp_path / "log", environment={"FLWR_HOME": str(tmp_path / node)})
    kill(carrying("FLWR_HOME", str(tmp_path / "A")))
    assert carrying("FLWR_HOME", str(tmp_path / "A")) == []
    assert len(carrying("FLWR_HOME", str(tmp_path / "B"))) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_a_process_ends_when_its_parent_is_killed(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from federation.flower.processes import OwnProcesses; own = OwnProcesses(); "
        f"own.start(['sleep', '600'], Path({str(tmp_path / 'log')!r})); print(own.home, flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=os.getcwd(), stdout=subprocess.PIPE, text=True)
    home = parent.stdout.readline().strip()
    wait_until(lambda: carrying(MARK, home))
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    wait_until(lambda: not carrying(MARK, home))
    os.rmdir(home)


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_a_question_to_a_superlink_ends_when_the_asking_process_is_killed(tmp_path):
    """`flwr` tries for minutes to reach a SuperLink that has ended, for example with the process that asks."""
    (tmp_path / "flwr").write_text("#!/bin/sh\nexec sleep 600\n")
    (tmp_path / "flwr").chmod(0o755)
    code = (
        "from pathlib import Path; from federation.flower.flower_command import FlowerCommand; "
        "from federation.flower.processes import OwnProcesses; own = OwnProcesses(); print(own.home, flush=True); "
        f"own.environment['PATH'] = {str(tmp_path)!r} + ':' + own.environment['PATH']; "
        f"FlowerCommand(own, '127.0.0.1:1', None, Path({str(tmp_path / 'log')!r})).nodes()"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=os.getcwd(), stdout=subprocess.PIPE, text=True)
    home = parent.stdout.readline().strip()
    wait_until(lambda: carrying(MARK, home))
    parent.kill()
    parent.wait()
    wait_until(lambda: not carrying(MARK, home))
    shutil.rmtree(home)


def test_a_process_whose_parent_has_already_ended_ends_at_once(tmp_path):
    code = "from federation.flower.processes import end_with_parent; end_with_parent(1 << 22); print('goes on')"
    done = subprocess.run([sys.executable, "-c", code], cwd=os.getcwd(), capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "")


def test_free_ports_are_different():
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert not {c.laddr.port for c in psutil.net_connections() if c.status == psutil.CONN_LISTEN} & set(ports)
