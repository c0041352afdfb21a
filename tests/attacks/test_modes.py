"""Folders and files of a node that other users of its machine could read or write: refused, as keys are.

Without the check the node works, whatever lies there.
"""

import os
import stat

import pytest
import yaml
from typer.testing import CliRunner

from clients import app, centre_file, preload, supernode
from clients import launcher as launcher_module
from clients.approval import Approvals
from clients.centre_file import CentreFile, CentreFileError
from clients.ledger import Ledger
from federation.wire.code_digest import code_digest
from federation.wire.job import IDENTIFY, Job, Reply
from polycentre.command_line import cli
from scenarios.reader import parse, resolved_yaml


@pytest.fixture
def path(centre_file, tmp_path):
    """A centre.yaml whose node has worked: it has approvals, a record, a secret, states and answers."""
    path = centre_file(tmp_path / "B", "B")
    file = CentreFile.read(path)
    assert ask(path).ok
    (file.workspace / "approved").mkdir()
    (file.workspace / "approved" / f"{'ab' * 32}.yaml").write_text("name: x\n")
    for name in ("states", "studies"):
        (file.workspace / name).mkdir()
        (file.workspace / name / "study").mkdir()
    (file.workspace / "secret").write_bytes(b"x" * 32)
    return path


def ask(path):
    job = Job("s", "u", "B", IDENTIFY, {}, code=code_digest())
    return app.answer(job, {"centre_file": str(path)})


OPENED = [
    ("workspace", 0o755), ("workspace", 0o770), ("workspace", 0o777), ("workspace", 0o711), ("workspace/approved", 0o755),
    ("workspace/approved", 0o777), ("workspace/secret", 0o640), ("workspace/ledger.jsonl", 0o644), ("workspace/ledger.jsonl", 0o622),
    ("workspace/states", 0o750), ("workspace/states/study", 0o705), ("workspace/studies", 0o755),
    (f"workspace/approved/{'ab' * 32}.yaml", 0o666),
    ("centre.yaml", 0o666), ("centre.yaml", 0o664), ("centre.yaml", 0o602), (".", 0o777), (".", 0o775), ("centre.anchor", 0o644),
]  # fmt: skip


@pytest.mark.parametrize(("name", "mode"), OPENED)
def test_an_open_mode_is_refused_by_the_node_and_named_with_its_remedy(name, mode, path, caplog):
    opened = path.parent / name
    opened.chmod(mode)
    with pytest.raises(CentreFileError) as problem:
        CentreFile.read(path)
    (line,) = str(problem.value).splitlines()
    assert f"{opened.resolve()} has mode {mode:04o}, so others can " in line
    reply = ask(path)
    assert (reply.code, reply.body) == ("bad_centre_file", {})
    assert line in caplog.text and str(path.parent) not in str(reply)
    remedy = line.rpartition(": ")[2]
    assert remedy.startswith("chmod ") and os.system(remedy) == 0
    assert ask(path).ok, "the remedy is one"


@pytest.mark.parametrize(("name", "mode"), OPENED)
def test_without_the_check_the_node_answers(name, mode, path, monkeypatch):
    monkeypatch.setattr(centre_file, "too_open", lambda *_: "")
    (path.parent / name).chmod(mode)
    assert ask(path).ok


def test_centre_check_says_it(path):
    (path.parent / "workspace" / "approved").chmod(0o777)
    done = CliRunner().invoke(cli, ["centre", "check", str(path)])
    assert isinstance(done.exception, CentreFileError) and "approved has mode 0777" in str(done.exception)


def test_what_only_the_owner_can_write_may_be_read(path):
    path.chmod(0o644)
    path.parent.chmod(0o755)
    assert ask(path).ok, "centre.yaml holds no secret"


def test_a_folder_in_which_only_owners_replace_files_is_none_of_these(path):
    path.parent.chmod(0o1777)
    assert ask(path).ok


def test_an_anchor_in_the_workspace_is_refused_by_whatever_way(path):
    tree = yaml.safe_load(path.read_text())
    (path.parent / "way").symlink_to(path.parent / "workspace")
    for anchor in (
        "workspace/a",
        "workspace/deeper/a",
        "x/../workspace/a",
        str(path.parent / "workspace" / "a"),
        "way/a",
    ):
        path.write_text(yaml.safe_dump(tree | {"log": {"anchor": anchor}}))
        with pytest.raises(CentreFileError, match="is in the workspace, where it would be lost with the record"):
            CentreFile.read(path)
    path.write_text(yaml.safe_dump(tree | {"workspace": "."}))
    with pytest.raises(CentreFileError, match="is in the workspace"):
        CentreFile.read(path)


# -- what the node makes ------------------------------------------------------------------------------------------------------


@pytest.fixture
def usual_umask():
    before = os.umask(0o022)
    yield
    os.umask(before)


def below(folder):
    return {str(file.relative_to(folder)): stat.S_IMODE(file.stat().st_mode) for file in sorted(folder.rglob("*"))}


def open_modes(folder):
    return {name: oct(mode) for name, mode in below(folder).items() if mode & 0o077}


def test_what_decides_and_what_is_evidence_is_made_private_under_any_umask(
    centre_file, tmp_path, usual_umask, tiny_text
):
    path = centre_file(tmp_path / "B", "B")
    (tmp_path / "B").chmod(0o700)
    assert ask(path).ok
    file = CentreFile.read(path)
    job = Job("s", "u", "C", "survey_data", {}, code=code_digest())
    assert app.answer(job, {"centre_file": str(path)}).code != "ok"
    Approvals(file.workspace).add(resolved_yaml(parse(tiny_text, source="t", base=tmp_path)))
    made = below(file.workspace)
    assert {"ledger.jsonl", "node.log", "approved"} <= set(made)
    assert (
        stat.S_IMODE(file.workspace.stat().st_mode) == 0o700 and stat.S_IMODE(file.log.anchor.stat().st_mode) == 0o600
    )
    assert not {name for name in open_modes(file.workspace) if "/" not in name and name != "own_bundle.json"}


def test_commands_of_the_administrator_write_what_is_private(path, usual_umask, tiny_text, tmp_path):
    tree = yaml.safe_load(tiny_text)
    del tree["arms"]["pooled"]
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(tree))
    for words in (["approve", str(path), str(tmp_path / "study.yaml")], ["pause", str(path)]):
        done = CliRunner().invoke(cli, ["centre", *words])
        assert done.exit_code == 0, done.output
    assert open_modes(path.parent / "workspace") == {}


@pytest.mark.parametrize("start", ["launcher", "preload", "supernode", "flower_supernode"])
def test_every_process_of_a_node_starts_so(start, path, usual_umask, monkeypatch):
    class Started(Exception):
        pass

    def started(*_, **__):
        raise Started

    from clients import flower_supernode

    monkeypatch.setenv("POLYCENTRE_CENTRE_FILE", str(path))
    monkeypatch.setattr("sys.argv", ["x", str(path.parent)])
    begin = {
        "launcher": (launcher_module, "run_guarded", launcher_module.main),
        "preload": (preload, "Resident", preload.main),
        "supernode": (
            supernode.SuperNode,
            "prepare",
            lambda: supernode.SuperNode(path, CentreFile.read(path)).run(print),
        ),
        "flower_supernode": (flower_supernode, "flower_supernode", flower_supernode.main),
    }
    home, name, main = begin[start]
    monkeypatch.setattr(home, name, started)
    monkeypatch.setattr(flower_supernode.InMemoryNodeState, "store_message", flower_supernode._store_message)
    monkeypatch.setattr(flower_supernode.httpx.HTTPTransport, "handle_request", flower_supernode._handle_request)
    with pytest.raises(Started):
        main()
    assert os.umask(0o022) == 0o077


def test_a_workspace_of_an_older_version_is_put_right_by_the_one_remedy(path):
    workspace = path.parent / "workspace"
    for name, mode in (("approved", 0o755), ("states", 0o755), ("node.log", 0o644), ("samples", 0o755)):
        (workspace / name).touch() if name == "node.log" else (workspace / name).mkdir(exist_ok=True)
        (workspace / name).chmod(mode)
    with pytest.raises(CentreFileError) as problem:
        CentreFile.read(path)
    remedy = str(problem.value).rpartition(": ")[2]
    assert remedy == f"chmod -R go-rwx {workspace}" and os.system(remedy) == 0
    assert Ledger.of(CentreFile.read(path)).verify().problems == []
    Ledger.of(CentreFile.read(path)).record(Job("s", "u", "B", "k", {}), Reply("s", "u", "B", "k"), "B")
