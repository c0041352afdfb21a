"""The check before Flower's client process: nothing of a bundle that is not approved is unpacked or imported.

Flower makes the bundles from this checkout, and Flower's own process function runs, with its network replaced.
"""

import hashlib
import io
import os
import shutil
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest
from flwr.app import Context, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.cli.build import build_fab_from_disk
from flwr.common.serde import context_to_proto, message_to_proto
from flwr.proto.fab_pb2 import Fab
from flwr.proto.message_pb2 import PullObjectResponse, PushObjectResponse
from flwr.proto.run_pb2 import Run
from flwr.proto.runtime_pb2 import (
    PullAppMessagesResponse,
    PullTaskInputResponse,
    PushAppMessagesResponse,
    SendTaskHeartbeatResponse,
)
from flwr.supercore.constant import TASK_TYPE_TO_COMMAND
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode.runtime import run_clientapp as process

from basics.plugins import CENTRE_FILE_VARIABLE
from clients import launcher
from clients.centre_file import CentreFile
from clients.digests import record_digest
from clients.ledger import Ledger
from clients.supernode import SuperNode
from federation.flower import bundle
from federation.flower.launchers import INSTALLING, guard
from federation.wire.errors import EnvelopeError, StudyError
from federation.wire.job import IDENTIFY, MESSAGE_TYPE, Job, Reply

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def own(flowers_bundle):
    """The bundle that Flower makes from this checkout."""
    return flowers_bundle


@pytest.fixture(scope="module")
def remembered(tmp_path_factory):
    """What a workspace remembers of the own bundle, so that not every test has Flower make it again."""
    memory = tmp_path_factory.mktemp("memory") / "own_bundle.json"
    bundle.own_digest(CHECKOUT, memory)
    return memory


@pytest.fixture(autouse=True)
def _made_once(own, monkeypatch):
    """What a refused bundle is compared with."""
    files = bundle.read_bundle(own)
    monkeypatch.setattr(launcher, "own_bundle", lambda checkout: files)


def digest(content):
    return bundle.digest_of(bundle.read_bundle(content))


def rewritten(content, changes=None, *, add=(), compression=zipfile.ZIP_STORED, reverse=False):
    """A bundle with some files changed (None: left out), and its list of hashes as it was."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w", compression) as new:
        names = sorted(old.namelist(), reverse=reverse)
        for name in names:
            data = (changes or {}).get(name, old.read(name))
            if data is not None:
                new.writestr(name, data)
        for name, data in add:
            new.writestr(name, data)
    return out.getvalue()


@pytest.fixture
def marker(tmp_path):
    """(a file, Python code that makes it): whether a bundle's code was run."""
    file = tmp_path / "was-run"
    return file, f"open({str(file)!r}, 'w').close()\n".encode()


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Flower's home, where bundles would be unpacked."""
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def file(centre_file, remembered, tmp_path):
    """Function: settings of centre B."""

    def make(**settings):
        made = CentreFile.read(centre_file(tmp_path / "B", "B", **({"approve": {"studies": "any"}} | settings)))
        made.workspace.mkdir(exist_ok=True)
        shutil.copy(remembered, made.workspace)
        return made

    return make


class Runtime:
    """A SuperNode's runtime interface in memory: hands out one task with its message, and takes the reply."""

    def __init__(self, message, context, content):
        self._contents = {key: part.deflate() for key, part in get_all_nested_objects(message).items()}
        self._message = PullAppMessagesResponse(
            messages_list=[message_to_proto(remove_content_from_message(message))],
            message_object_trees=[get_object_tree(message)],
        )
        self._input = PullTaskInputResponse(
            task_id=1,
            context=context_to_proto(context),
            run=Run(run_id=1, fab_id="polycentre/polycentre", fab_version="0.1.0"),
            fab=Fab(hash_str=hashlib.sha256(content).hexdigest(), content=content),
        )
        self._pushed = {}
        self._reply_id = ""

    def ask(self, *, rpc_method, request, response_type, **_):
        """In the place of a request over HTTP."""
        match rpc_method.rpartition("/")[2]:
            case "PullTaskInput":
                return self._input
            case "PullMessages":
                return self._message
            case "PullObject":
                found = self._contents[request.object_id]
                return PullObjectResponse(object_found=True, object_available=True, object_content=found)
            case "PushMessages":
                self._reply_id = request.message_object_trees[0].object_id
                return PushAppMessagesResponse(objects_to_push=ids_of(request.message_object_trees[0]))
            case "PushObject":
                self._pushed[request.object_id] = request.object_content
                return PushObjectResponse(stored=True)
            case "SendTaskHeartbeat":
                return SendTaskHeartbeatResponse(success=True)
        return response_type()

    @property
    def reply(self):
        """The message that was pushed."""
        return inflate_object_from_contents(self._reply_id, self._pushed)


def ids_of(tree):
    return [tree.object_id, *(part for child in tree.children for part in ids_of(child))]


@pytest.fixture
def launched(monkeypatch, home):
    """Function: run Flower's client process behind the gate with a bundle; returns what it pushed as reply."""

    def run(content, settings, job=None, gate=None):
        TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1
        job = job or Job("roll-call", "node-1", "unknown", IDENTIFY, {}, label="the roll call")
        message = Message(job.to_record(), 1, MESSAGE_TYPE)
        message.metadata.__dict__.update(_run_id=1)
        message.metadata.__dict__.update(_message_id=message.object_id)
        config = {"centre_file": str(settings.workspace.parent / "centre.yaml")}
        context = Context(run_id=1, node_id=1, node_config=config, state=RecordDict(), run_config={})
        runtime = Runtime(message, context, content)
        monkeypatch.setattr(RuntimeHttpClient, "_unary_unary", runtime.ask)
        at_exit = []
        monkeypatch.setattr(process, "register_signal_handlers", lambda **kw: at_exit.extend(kw["exit_handlers"]))
        monkeypatch.setattr(process, "flwr_exit", lambda **_: [handler() for handler in at_exit])
        monkeypatch.setattr(process, "event", lambda *_, **__: None)  # telemetry
        for name in launcher.CHECKS:
            monkeypatch.setattr(process, name, getattr(process, name))  # restored afterwards
        guard(process, gate or launcher.Gate(settings, CHECKOUT), launcher.CHECKS)
        process.run_clientapp("127.0.0.1:1", "token", insecure=True)
        run.asked, run.pushed = message, runtime.reply
        return Reply.from_record(run.pushed.content, job)

    return run


def unpacked(home):
    return [path for path in home.rglob("*") if path.is_file()] if home.exists() else []


def test_the_own_bundle_is_answered_by_this_installations_code_and_not_unpacked(own, file, launched, home):
    reply = launched(own, file())
    assert reply.ok and reply.body["centre"] == "B" and reply.body["bundle"] == digest(own)
    assert unpacked(home) == []


def test_the_same_files_packed_otherwise_are_the_same_bundle(own, file, launched):
    again = rewritten(own, compression=zipfile.ZIP_DEFLATED, reverse=True)
    assert again != own and digest(again) == digest(own)
    assert launched(again, file()).ok


@pytest.mark.parametrize(
    "name", ["clients/app.py", "clients/__init__.py", "federation/__init__.py", "strategies/one_shot.py"]
)
def test_a_bundle_with_changed_code_is_refused_and_nothing_of_it_runs(name, own, file, launched, home, marker):
    flag, code = marker
    with zipfile.ZipFile(io.BytesIO(own)) as archive:
        assert name in archive.namelist()
        changed = rewritten(own, {name: code + archive.read(name)})
    settings = file()
    reply = launched(changed, settings)
    assert reply.code == "bundle_not_approved"
    assert reply.numbers == {"bundle": digest(changed), "own": digest(own), "at": "B"}
    assert not flag.exists() and unpacked(home) == []
    (entry,) = Ledger(settings.workspace).verify().entries
    assert (entry["kind"], entry["code"]) == (IDENTIFY, "bundle_not_approved")


def test_a_job_with_changed_code_is_refused_before_its_policy_or_its_data_are_asked(own, file, launched):
    job = Job("s", "u", "B", "survey_data", {}, label="survey of B")
    reply = launched(rewritten(own, {"clients/app.py": b""}), file(), job)
    assert (reply.code, reply.unit) == ("bundle_not_approved", "u")


@pytest.mark.parametrize(
    "changes",
    [
        {"add": [("clients/more.py", b"")]},  # Flower's list of hashes does not name it, and Flower does not mind
        {"add": [("sitecustomize.py", b"")]},
        {"changes": {"clients/policy.py": None}},
        {"changes": {".info/CONTENT": b""}},
        {"changes": {"pyproject.toml": b"[project]\n"}},
    ],
)
def test_a_bundle_with_a_file_more_or_less_is_refused(changes, own, file, launched, home):
    assert launched(rewritten(own, **changes), file()).code == "bundle_not_approved"
    assert unpacked(home) == []


def test_a_listed_bundle_is_unpacked_and_run_as_flower_does(own, file, launched, home, marker):
    """A foreign version that the administrator has approved by its digest."""
    flag, code = marker
    app = textwrap.dedent("""
        from flwr.app import Message
        from flwr.clientapp import ClientApp
        app = ClientApp()
        @app.query()
        def handle(message, context):
            return Message(message.content, reply_to=message)
    """)
    names = zipfile.ZipFile(io.BytesIO(own)).namelist()
    other = {name: None for name in names if name.endswith(".py") or name == ".info/CONTENT"}
    with zipfile.ZipFile(io.BytesIO(own)) as archive:
        toml = archive.read("pyproject.toml").replace(b"clients.app:app", b"foreign_app.app:app")
    listed = f"pyproject.toml,{hashlib.sha256(toml).hexdigest()},1\n"
    foreign = rewritten(own, other | {"pyproject.toml": toml}, add=[
        ("foreign_app/__init__.py", code), ("foreign_app/app.py", app), (".info/CONTENT", listed),
    ])  # fmt: skip
    assert launched(foreign, file()).code == "bundle_not_approved" and not flag.exists()
    job = Job("s", "u", "B", "survey_data", {})
    settings = file(approve={"studies": "any", "bundles": [digest(foreign)]})
    with pytest.raises(EnvelopeError):  # it answers with the job itself, which is not a reply of ours
        launched(foreign, settings, job)
    assert flag.exists() and unpacked(home)
    entry = Ledger.of(settings).verify().entries[-1]
    assert (entry["kind"], entry["code"]) == ("foreign_bundle", "ok"), "whether or not that code keeps a record"
    assert (entry["received"], entry["sha256"]) == (
        launched.asked.metadata.message_id,
        record_digest(launched.pushed.content),
    )
    lines = (settings.workspace / "ledger.jsonl").read_bytes().splitlines(keepends=True)
    (settings.workspace / "ledger.jsonl").write_bytes(b"".join(lines[:-1]))
    with pytest.raises(ValueError, match="content is None"):
        launched(foreign, settings, job)
    assert launched.pushed.error.reason == "the answer stays at the node, which cannot record it"


@pytest.mark.parametrize("known", [True, False], ids=["", "its centre.yaml cannot be read"])
def test_the_text_of_an_error_of_flowers_own_does_not_leave(known, own, file, launched, monkeypatch, caplog):
    """Where neither the app nor the gate has seen the message, Flower sends what the exception says."""

    def fails():
        raise RuntimeError("/home/ward7/Jane Doe\n2026-01-01T00:00:00Z approved")

    settings = file()
    monkeypatch.setattr(launcher, "_own_app", fails)
    gate = launcher.Gate(settings, CHECKOUT)
    if not known:
        gate._decided = lambda *_: setattr(gate, "_run", fails)
        gate._file = None
    with pytest.raises(ValueError, match="content is None"):
        launched(own, settings, gate=gate)
    error = launched.pushed.error
    assert "Jane" not in error.reason and "ward7" not in error.reason
    reference = error.reason.partition("reference ")[2].rstrip(")")
    # Flower itself also writes the traceback on the console, as it is.
    said = "".join(record.message for record in caplog.records if "reference" in record.message)
    text = (settings.workspace / "node.log").read_text() if known else said
    assert f"reference {reference}" in text and "Jane Doe" in text and "\n2026-01-01" not in text


def test_a_listed_bundle_does_not_take_the_own_one_away(own, file, launched):
    assert launched(own, file(approve={"studies": "any", "bundles": ["0" * 64]})).ok


def test_a_centre_file_with_an_error_leads_to_a_refusal(own, file, launched):
    settings = file()
    (settings.workspace.parent / "centre.yaml").write_text("centre: B\n")
    assert launched(own, settings, gate=launcher.Gate(None, CHECKOUT)).code == "bad_centre_file"


def test_the_text_of_a_fault_in_the_check_does_not_leave(own, file, launched, monkeypatch):
    settings = file()
    monkeypatch.setattr(launcher, "own_digest", lambda *_: (_ for _ in ()).throw(OSError("/home/ward7/secret")))
    reply = launched(own, settings)
    assert (reply.code, reply.numbers) == ("bundle_not_approved", {"bundle": "unchecked", "own": "unknown", "at": "B"})


def test_a_refusal_that_cannot_be_recorded_is_still_one(own, file, launched):
    settings = file()
    (settings.workspace / "ledger.jsonl").write_text("{}\n")
    assert launched(rewritten(own, {"clients/app.py": b""}), settings).code == "ledger_broken"


# -- what is not a bundle ---------------------------------------------------------------------------------------------


def zipped(*entries):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return out.getvalue()


def link():
    entry = zipfile.ZipInfo("clients")
    entry.external_attr = 0o120777 << 16
    return entry


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "not a readable zip file"),
        (b"PK\x03\x04nothing", "not a readable zip file"),
        (zipped(("a.py", b"1"), ("a.py", b"2")), "is listed twice"),
        (zipped(("a.py", b"1"), ("A.py", b"2")), "is listed twice"),
        (zipped(("/etc/passwd", b"")), "is not a plain path"),
        (zipped(("a/../../b.py", b"")), "is not a plain path"),
        (zipped(("a//b.py", b"")), "is not a plain path"),
        (zipped(("./b.py", b"")), "is not a plain path"),
        (zipped(("a\\b.py", b"")), "is not a plain path"),
        (zipped((link(), b"/etc")), "is not a regular file"),
        (zipped(("a.py", b"\0" * (65 * 2**20))), "larger than any bundle"),
    ],
)
def test_what_cannot_be_a_bundle_is_refused(content, expected, file, launched, home):
    with pytest.raises(bundle.BundleError, match=expected):
        bundle.read_bundle(content)
    reply = launched(content, file())
    assert (reply.code, reply.numbers["bundle"]) == ("bundle_not_approved", "unreadable") and unpacked(home) == []


# -- the digest of the own bundle --------------------------------------------------------------------------------------


@pytest.fixture
def checkout(tmp_path):
    folder = tmp_path / "checkout"
    (folder / "pkg").mkdir(parents=True)
    (folder / "pkg" / "__init__.py").write_text("")
    (folder / "LICENSE").write_text("")
    (folder / "pyproject.toml").write_text(
        textwrap.dedent("""
        [project]
        name = "small"
        version = "1.0.0"
        license = {file = "LICENSE"}
        [tool.flwr.app]
        publisher = "p"
        [tool.flwr.app.components]
        serverapp = "pkg:a"
        clientapp = "pkg:b"
        [tool.flwr.app.config]
    """)
    )
    return folder


def test_the_own_digest_is_remembered_until_a_file_changes(checkout, tmp_path, monkeypatch):
    memory = tmp_path / "memory.json"
    first = bundle.own_digest(checkout, memory)
    assert first == digest(build_fab_from_disk(checkout)) == bundle.own_digest(checkout)
    monkeypatch.setattr(bundle, "own_bundle", lambda folder: pytest.fail("computed again"))
    assert bundle.own_digest(checkout, memory) == first
    monkeypatch.undo()
    (checkout / "pkg" / "__init__.py").write_text("#")
    assert bundle.own_digest(checkout, memory) != first
    memory.write_text("{")
    assert bundle.own_digest(checkout, memory) == bundle.own_digest(checkout)


def test_flower_makes_the_same_bundle_of_the_copied_files(tmp_path):
    bundle.copy_candidates(CHECKOUT, tmp_path / "app")
    assert build_fab_from_disk(tmp_path / "app") == build_fab_from_disk(CHECKOUT)


def test_what_differs_is_named_for_the_log():
    assert bundle.differences({"a": b"1", "b": b"2", "n": b""}, {"a": b"1", "b": b"3", "o": b""}) == "+n, -o, ~b"
    many = {f"{i:02d}": b"" for i in range(30)}
    assert bundle.differences(many, {}).endswith("and 20 more")


# -- around it -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", launcher.CHECKS)
def test_a_version_of_flower_that_is_built_differently_is_refused_and_not_run_unchecked(name, file, monkeypatch):
    for replaced in launcher.CHECKS:
        monkeypatch.setattr(process, replaced, getattr(process, replaced))
    monkeypatch.delattr(process, name)
    with pytest.raises(StudyError, match=f"no longer has {name}, so bundles cannot be checked"):
        guard(process, launcher.Gate(file(), CHECKOUT), launcher.CHECKS)


def test_the_launcher_does_not_start_without_the_centres_settings(monkeypatch):
    monkeypatch.delenv(CENTRE_FILE_VARIABLE, raising=False)
    monkeypatch.setattr(launcher, "flwr_clientapp", lambda: pytest.fail("it was started"))
    with pytest.raises(SystemExit, match="polycentre centre run"):
        launcher.main()


def test_dependencies_of_a_bundle_are_never_installed(file, monkeypatch):
    seen = []
    monkeypatch.setattr(sys, "argv", ["flwr-clientapp", "--token", "x", INSTALLING, "--insecure"])
    settings = file()
    monkeypatch.setenv(CENTRE_FILE_VARIABLE, str(settings.workspace.parent / "centre.yaml"))
    for name in launcher.CHECKS:
        monkeypatch.setattr(process, name, getattr(process, name))
    monkeypatch.setattr(launcher, "flwr_clientapp", lambda: seen.append(sys.argv[1:]))
    launcher.main()
    assert seen == [["--token", "x", "--insecure"]]


def test_the_script_on_the_nodes_path_is_this_launcher(file, tmp_path):
    settings = file()
    node = SuperNode(settings.workspace.parent / "centre.yaml", settings)
    node.prepare()
    script = settings.workspace / "bin" / "flwr-clientapp"
    assert os.access(script, os.X_OK)
    assert node.environment["PATH"].split(os.pathsep)[0] == str(script.parent)
    environment = node.environment | {"PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run(
        [str(script), "--help"], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert "--runtime-api-address" in done.stdout, done.stderr
    assert "--insecure" not in node.command


def test_no_other_kind_of_task_is_done_on_a_node(file, tmp_path):
    """Which kind a run is comes from the server: an agent's bundle would pass by the check of the client's."""
    settings = file()
    node = SuperNode(settings.workspace.parent / "centre.yaml", settings)
    node.prepare()
    others = set(TASK_TYPE_TO_COMMAND.values()) - {"flwr-clientapp"}
    assert {"flwr-agentapp", "flwr-serverapp"} <= others
    for name in others:
        done = subprocess.run(
            [name, "--token", "x"], env=node.environment, cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
        assert (
            done.returncode == 1
            and done.stderr == f"polycentre: {name} is refused: this installation does no task of this kind\n"
        )


def test_a_process_that_allocates_more_than_it_may_gets_a_memory_error():
    code = (
        "from clients.launcher import limit_memory; import numpy as np, torch; limit_memory(1.0); torch.zeros(2**20)\n"
        "for make in (lambda: np.ones(2**28), lambda: torch.ones(2**28, dtype=torch.float64)):\n"
        "    try: make(); print('allocated')\n"
        "    except (MemoryError, RuntimeError) as problem:\n"
        '        print(isinstance(problem, MemoryError), "can\'t allocate memory" in str(problem))\n'
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, timeout=60)
    assert done.stdout.split("\n")[:2] == ["True False", "False True"], done.stdout + done.stderr
