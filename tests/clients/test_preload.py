"""The resident process: a job forked from it is like any other, and a job that it declines is done all the same."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from basics.plugins import CENTRE_FILE_VARIABLE
from clients.preload import SOCKET
from clients.supernode import handover_script

CHECKOUT = Path(__file__).resolve().parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(CHECKOUT)}

# What a forked process does here: print who it is, read its input, write to both streams, end with a status.
WORK = """
import os, sys, signal
from pathlib import Path
from clients.preload import Resident

def work(arguments):
    if arguments == ["die"]:
        os.kill(os.getpid(), signal.SIGKILL)
    if arguments == ["fault"]:
        raise ValueError("a fault")
    print(os.getppid(), os.getcwd(), arguments, sys.stdin.read(), flush=True)
    print("on the other stream", file=sys.stderr)
    sys.exit(7)

Resident(Path(sys.argv[1]), work, lambda: not Path(sys.argv[1], "stale").exists()).serve()
"""


@pytest.fixture
def folder(tmp_path):
    """A folder whose path is longer than a socket's may be."""
    deep = tmp_path / ("x" * 60) / ("y" * 60)
    deep.mkdir(parents=True)
    return deep


@pytest.fixture
def start(folder):
    """Function: start a resident process and wait until it listens."""
    running = []

    def begin(*command):
        process = subprocess.Popen([sys.executable, *command, str(folder)], env=ENVIRONMENT, cwd=folder)
        running.append(process)
        deadline = time.monotonic() + 60
        while not (folder / SOCKET).exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        return process

    yield begin
    for process in running:
        process.kill()
        process.wait()


@pytest.fixture
def ask(folder, tmp_path):
    """Function: run the script that replaces Flower's client process."""
    script = tmp_path / "flwr-clientapp"
    script.write_text(handover_script(folder))
    script.chmod(0o755)

    def call(*arguments, cwd=tmp_path, **options):
        return subprocess.run(
            [str(script), *arguments], cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, **options
        )

    return call


def test_a_job_gets_its_arguments_its_folder_and_its_streams_and_gives_its_status(start, ask, tmp_path):
    resident = start("-c", WORK)
    for number in range(3):
        done = ask("--token", f"t {number}", input="hello")
        assert done.returncode == 7, done.stderr
        assert done.stdout == f"{resident.pid} {tmp_path} ['--token', 't {number}'] hello\n"
        assert done.stderr == "on the other stream\n"


def test_several_at_once(start, folder, tmp_path):
    start("-c", WORK)
    script = tmp_path / "script"
    script.write_text(handover_script(folder))
    script.chmod(0o755)
    running = [subprocess.Popen([str(script), str(i)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                env=ENVIRONMENT, text=True) for i in range(4)]  # fmt: skip
    for number in (2, 0, 3, 1):  # all of them run at once, and none waits for another
        out, _ = running[number].communicate(str(number), timeout=30)
        assert out.endswith(f"['{number}'] {number}\n") and running[number].returncode == 7


def test_a_job_that_dies_or_fails_leaves_the_resident_process_as_it_is(start, ask):
    resident = start("-c", WORK)
    assert ask("die").returncode == 128 + signal.SIGKILL
    failed = ask("fault")
    assert failed.returncode == 1 and "ValueError: a fault" in failed.stderr
    assert resident.poll() is None and ask("again", input="").returncode == 7


def test_only_its_own_user_may_ask(start, folder):
    start("-c", WORK)
    assert (folder / SOCKET).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("request_", [b"nothing\n", b"{}\n", b"[]\n", b"x" * 100_000, b""])
def test_what_is_not_a_request_is_ignored(request_, start, folder, ask, monkeypatch):
    resident = start("-c", WORK)
    monkeypatch.chdir(folder)
    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(SOCKET)
        with contextlib.suppress(OSError):  # it does not wait for the end of a request that is too long
            asking.sendall(request_)
            asking.shutdown(socket.SHUT_WR)
            assert asking.recv(16) == b""
    with socket.socket(socket.AF_UNIX) as asking:  # without its streams
        asking.connect(SOCKET)
        asking.sendall(json.dumps({"arguments": [], "cwd": "/"}).encode() + b"\n")
        assert asking.recv(16) == b""
    assert resident.poll() is None and ask("again", input="").returncode == 7


def usage(done):
    return "--runtime-api-address" in done.stdout


def test_without_a_resident_process_the_plain_launcher_runs(ask, centre_file, tmp_path, monkeypatch):
    monkeypatch.setitem(ENVIRONMENT, CENTRE_FILE_VARIABLE, str(centre_file(tmp_path / "B")))
    done = ask("--help")
    assert done.returncode == 0 and usage(done)
    assert "no resident process took the job" in done.stderr


def test_a_resident_process_whose_code_has_changed_declines(start, folder, monkeypatch):
    """Whoever asked then starts the plain launcher, as if there were no resident process."""
    start("-c", WORK)
    (folder / "stale").touch()
    monkeypatch.chdir(folder)
    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(SOCKET)
        request = json.dumps({"arguments": [], "cwd": str(folder)}).encode() + b"\n"
        socket.send_fds(asking, [request], [0, 1, 2])
        assert asking.recv(16) == b""


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_the_nodes_own_resident_process_is_the_launcher_with_torch_imported(
    start, ask, centre_file, tmp_path, monkeypatch
):
    file = centre_file(tmp_path / "B")
    monkeypatch.setitem(ENVIRONMENT, CENTRE_FILE_VARIABLE, str(file))
    resident = start("-m", "clients.preload")
    assert "libtorch" in Path(f"/proc/{resident.pid}/maps").read_text(), "a job would import torch itself"
    done = ask("--help")
    assert done.returncode == 0 and usage(done) and done.stderr == ""
    file.write_text("centre: B\n")  # read again for every job
    refused = ask("--help")
    assert "superlink: is missing" in refused.stderr
