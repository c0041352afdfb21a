"""The resident process: a job forked from it is a job as any other, and one that it does not take is done all the same."""

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

from clients.preload import SOCKET
from clients.supernode import CENTRE_FILE, handover_script

CHECKOUT = Path(__file__).resolve().parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(CHECKOUT)}

# What a forked process does here: tell who it is, read its input, write on both streams, end with a status.
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
    """Function: run the script that stands in the place of Flower's client process."""
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
    for number in (2, 0, 3, 1):  # all of them run, and none waits for another
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
def test_a_request_that_is_none_is_left_alone(request_, start, folder, ask, monkeypatch):
    resident = start("-c", WORK)
    monkeypatch.chdir(folder)
    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(SOCKET)
        with contextlib.suppress(OSError):  # it does not wait for the end of one that is too long
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


def test_where_no_resident_process_is_the_plain_launcher_is_run(ask, centre_file, tmp_path, monkeypatch):
    monkeypatch.setitem(ENVIRONMENT, CENTRE_FILE, str(centre_file(tmp_path / "B")))
    done = ask("--help")
    assert done.returncode == 0 and usage(done)
    assert "no resident process took the job" in done.stderr


def test_a_resident_process_whose_code_has_changed_declines(start, ask, folder, centre_file, tmp_path, monkeypatch):
    monkeypatch.setitem(ENVIRONMENT, CENTRE_FILE, str(centre_file(tmp_path / "B")))
    start("-c", WORK)
    (folder / "stale").touch()
    done = ask("--help")
    assert done.returncode == 0 and usage(done) and "no resident process took the job" in done.stderr


def test_the_nodes_own_resident_process_is_the_launcher_with_torch_imported(
    start, ask, centre_file, tmp_path, monkeypatch
):
    file = centre_file(tmp_path / "B")
    monkeypatch.setitem(ENVIRONMENT, CENTRE_FILE, str(file))
    start("-m", "clients.preload")
    began = time.monotonic()
    done = ask("--help")
    assert done.returncode == 0 and usage(done) and done.stderr == ""
    assert time.monotonic() - began < 2.0, "an import of torch alone takes longer on this path's machines"
    file.write_text("centre: B\n")  # read anew for every job
    refused = ask("--help")
    assert refused.returncode == 1 and "superlink: is missing" in refused.stderr
