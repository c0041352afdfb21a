"""The operator's side of the check: a run's bundle is this installation's, or it does not run."""

import ctypes
import io
import signal
import sys
import zipfile
from pathlib import Path
from queue import Queue

import pytest
from flwr.app import Context, RecordDict
from flwr.common.serde import context_to_proto
from flwr.proto.fab_pb2 import Fab
from flwr.proto.run_pb2 import Run
from flwr.proto.runtime_pb2 import PullTaskInputResponse, SendTaskHeartbeatResponse
from flwr.supercore.runtime import RuntimeHttpClient

from federation.flower import bundle
from federation.flower.launchers import INSTALLING, guard, launcher_script, write_launchers
from federation.wire.errors import StudyError
from server import launcher

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def own(flowers_bundle):
    return flowers_bundle


@pytest.fixture
def gate(tmp_path):
    return launcher.Gate(CHECKOUT, tmp_path / "own_bundle.json")


def digest(content):
    return bundle.digest_of(bundle.read_bundle(content))


def changed(content, name, data):
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w") as new:
        for entry in old.namelist():
            new.writestr(entry, data if entry == name else old.read(entry))
    return out.getvalue()


@pytest.fixture
def served(monkeypatch, tmp_path, gate):
    """Function: run Flower's server process with a bundle up to where it would load the app; returns (folder, details)."""

    def run(content):
        loaded, details, at_exit = [], [], []
        home = tmp_path / "home"
        monkeypatch.setenv("FLWR_HOME", str(home))
        context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})
        answers = {
            "PullTaskInput": PullTaskInputResponse(
                task_id=1, context=context_to_proto(context), run=Run(run_id=1), fab=Fab(hash_str="0" * 64, content=content)
            ),
            "SendTaskHeartbeat": SendTaskHeartbeatResponse(success=True),
        }  # fmt: skip

        def ask(client, *, rpc_method, request, response_type, **_):
            """In the place of a request to the SuperLink over HTTP."""
            name = rpc_method.rpartition("/")[2]
            if name == "PushTaskOutput":
                details.append(request.details)
            return answers.get(name) or response_type()

        process = launcher.process
        monkeypatch.setattr(RuntimeHttpClient, "_unary_unary", ask)
        monkeypatch.setattr(process, "register_signal_handlers", lambda **kw: at_exit.extend(kw["exit_handlers"]))
        monkeypatch.setattr(process, "flwr_exit", lambda **_: [handler() for handler in at_exit])
        monkeypatch.setattr(process, "event", lambda *_, **__: None)  # telemetry
        monkeypatch.setattr(process, "run_", lambda **kw: loaded.append(kw["server_app_dir"]) or context)
        for name in launcher.CHECKS:
            monkeypatch.setattr(process, name, getattr(process, name))  # restored afterwards
        guard(process, gate, launcher.CHECKS)
        process.run_serverapp("127.0.0.1:1", Queue(), "token", True)
        assert not home.exists() or not [p for p in home.rglob("*.py")], "nothing is unpacked"
        return loaded, details[0]

    return run


def test_the_own_bundle_runs_from_the_checkout(own, served):
    assert served(own) == ([str(CHECKOUT)], "")


def test_another_bundle_is_refused_with_both_digests(own, served):
    other = changed(own, "server/app.py", b"")
    loaded, details = served(other)
    assert loaded == []
    assert "runs only its own app bundle" in details
    assert digest(own) in details and digest(other) in details


def test_what_is_no_bundle_is_refused(served):
    loaded, details = served(b"nothing")
    assert loaded == [] and "not a readable zip file" in details


@pytest.mark.parametrize("name", launcher.CHECKS)
def test_a_version_of_flower_that_is_built_otherwise_is_refused(name, gate, monkeypatch):
    for replaced in launcher.CHECKS:
        monkeypatch.setattr(launcher.process, replaced, getattr(launcher.process, replaced))
    monkeypatch.delattr(launcher.process, name)
    with pytest.raises(StudyError, match=f"no longer has {name}"):
        guard(launcher.process, gate, launcher.CHECKS)


def test_a_launcher_for_a_process_that_flower_does_not_start_is_a_fault(tmp_path):
    with pytest.raises(ValueError, match="Flower starts no flwr-nothing"):
        write_launchers(tmp_path, {"flwr-nothing": launcher_script("server.launcher")})
    write_launchers(tmp_path, {"flwr-serverapp": launcher_script("server.launcher")})
    assert (tmp_path / "flwr-serverapp").read_text() == launcher_script("server.launcher")
    assert "is refused" in (tmp_path / "flwr-clientapp").read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="PR_GET_PDEATHSIG is Linux's")
def test_the_server_process_ends_with_the_superexec_that_started_it(monkeypatch):
    prctl, signals = ctypes.CDLL(None).prctl, []

    def signal_at_the_parents_end():
        found = ctypes.c_int(-1)
        prctl(2, ctypes.byref(found))  # PR_GET_PDEATHSIG
        signals.append(found.value)

    monkeypatch.setattr(sys, "argv", ["flwr-serverapp", INSTALLING, "--insecure"])
    monkeypatch.setattr(launcher, "flwr_serverapp", signal_at_the_parents_end)
    for name in launcher.CHECKS:
        monkeypatch.setattr(launcher.process, name, getattr(launcher.process, name))
    try:
        launcher.main()
    finally:
        prctl(1, 0)  # PR_SET_PDEATHSIG: none
    assert signals == [signal.SIGTERM]
    assert sys.argv[1:] == ["--insecure"], "nothing is installed"
