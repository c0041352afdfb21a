"""The SuperLink's own side of the check: a run's bundle is this installation's, or it is not run."""

import io
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from flwr.cli.build import build_fab_from_disk

from federation.flower import bundle
from federation.flower.launchers import launcher_script, write_launchers
from federation.wire.errors import StudyError
from server import launcher

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def own():
    return build_fab_from_disk(CHECKOUT)


@pytest.fixture
def gate(tmp_path):
    return launcher.Gate(CHECKOUT, tmp_path / "own_bundle.json")


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
        loaded, told = [], []
        home = tmp_path / "home"
        monkeypatch.setenv("FLWR_HOME", str(home))
        process = launcher.process
        grid = SimpleNamespace(
            set_run=lambda run: None, close=lambda: None, _retry_invoker=SimpleNamespace(max_tries=None),
            _runtime_client=SimpleNamespace(
                PullTaskInput=lambda request: SimpleNamespace(
                    task_id=1, run=SimpleNamespace(run_id=1), context=SimpleNamespace(node_id=1), fab=None
                ),
                PushTaskOutput=lambda request: told.append(request.details),
            ),
        )  # fmt: skip
        fab = SimpleNamespace(content=content, hash_str="0" * 64)
        handlers = []
        monkeypatch.setattr(process, "HttpGrid", lambda **_: grid)
        monkeypatch.setattr(
            process, "HeartbeatSender", lambda fn: SimpleNamespace(start=lambda: None, is_running=False)
        )
        monkeypatch.setattr(process, "make_task_heartbeat_fn_http", lambda client: None)
        monkeypatch.setattr(process, "context_from_proto", lambda proto: SimpleNamespace())
        monkeypatch.setattr(process, "context_to_proto", lambda context: None)
        monkeypatch.setattr(process, "run_from_proto", lambda proto: SimpleNamespace(run_id=1, override_config={}))
        monkeypatch.setattr(process, "fab_from_proto", lambda proto: fab)
        monkeypatch.setattr(process, "start_log_uploader", lambda **_: None)
        monkeypatch.setattr(process, "event", lambda *_, **__: None)
        monkeypatch.setattr(process, "register_signal_handlers", lambda **kw: handlers.extend(kw["exit_handlers"]))
        monkeypatch.setattr(process, "flwr_exit", lambda **_: [handler() for handler in handlers])
        monkeypatch.setattr(
            process, "run_", lambda **kw: loaded.append(kw["server_app_dir"]) or SimpleNamespace(state=None)
        )
        for name in launcher._REPLACED:
            monkeypatch.setattr(process, name, getattr(process, name))
        launcher.guard(gate)
        process.run_serverapp("127.0.0.1:1", None, "token", True)
        assert not home.exists() or not [p for p in home.rglob("*.py")], "nothing is unpacked"
        return loaded, told[0]

    return run


def test_the_own_bundle_runs_from_the_checkout(own, served):
    assert served(own) == ([str(CHECKOUT)], "")


def test_another_bundle_is_refused_with_both_digests(own, served):
    other = changed(own, "server/app.py", b"")
    loaded, details = served(other)
    assert loaded == []
    assert "runs its own app bundle only" in details
    assert bundle.bundle_digest(own) in details and bundle.bundle_digest(other) in details


def test_what_is_no_bundle_is_refused(served):
    loaded, details = served(b"nothing")
    assert loaded == [] and "no zip file" in details


@pytest.mark.parametrize("name", launcher._REPLACED)
def test_a_version_of_flower_that_is_built_otherwise_is_refused(name, gate, monkeypatch):
    for replaced in launcher._REPLACED:
        monkeypatch.setattr(launcher.process, replaced, getattr(launcher.process, replaced))
    monkeypatch.delattr(launcher.process, name)
    with pytest.raises(StudyError, match=f"has no {name} any more"):
        launcher.guard(gate)


def test_a_launcher_for_a_process_that_flower_does_not_start_is_a_fault(tmp_path):
    with pytest.raises(ValueError, match="Flower starts no flwr-nothing"):
        write_launchers(tmp_path, {"flwr-nothing": launcher_script("server.launcher")})
    write_launchers(tmp_path, {"flwr-serverapp": launcher_script("server.launcher")})
    assert (tmp_path / "flwr-serverapp").read_text() == launcher_script("server.launcher")
    assert "is refused" in (tmp_path / "flwr-clientapp").read_text()
