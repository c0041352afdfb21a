"""`polycentre deploy`: who gets which file, and what is kept when it is run again."""

import os
import stat

import pytest
import yaml
from typer.testing import CliRunner

from clients.centre_file import NO_DATA, CentreFile, CentreFileError
from clients.ledger import Ledger
from federation.flower.certificates import SERVER
from federation.flower.operator import DeploymentFile
from federation.flower.processes import OwnProcesses
from federation.wire.errors import StudyError
from federation.wire.job import Job, Reply
from polycentre.command_line import cli
from polycentre.deploy import trial


def init(folder, *arguments):
    return CliRunner().invoke(
        cli, ["deploy", "init", str(folder), "--centre", "A", "--centre", "B", "--host", "link.example", *arguments]
    )


@pytest.fixture(params=[0o022])
def usual_umask(request):
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.fixture
def folder(tmp_path, usual_umask):
    done = init(tmp_path / "site")
    assert done.exit_code == 0, done.output
    return tmp_path / "site"


def test_everyone_gets_what_is_theirs_and_no_more(folder):
    found = {str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file()}
    assert found == {
        "authority/ca.crt", "authority/ca.key",
        "superlink/ca.crt", "superlink/superlink.crt", "superlink/superlink.key", "superlink/operator.secret",
        "operator/ca.crt", "operator/operator.secret", "operator/deployment.yaml", "operator/keys/A.pub", "operator/keys/B.pub",
        "centres/A/ca.crt", "centres/A/centre.key", "centres/A/centre.key.pub", "centres/A/centre.yaml",
        "centres/B/ca.crt", "centres/B/centre.key", "centres/B/centre.key.pub", "centres/B/centre.yaml",
    }  # fmt: skip
    private = {f.name for f in folder.rglob("*") if f.is_file() and f.stat().st_mode & 0o077 == 0}
    assert private == {"ca.key", "superlink.key", "operator.secret", "centre.key"}


def test_a_hospitals_file_is_one_that_its_node_reads_once_it_says_where_the_data_are(folder):
    path = folder / "centres" / "B" / "centre.yaml"
    with pytest.raises(CentreFileError) as missing:
        CentreFile.read(path)
    assert str(missing.value) == f"{path}: {NO_DATA}"
    read = CentreFile.read(path, complete=False)
    assert (read.centre, read.superlink, read.approve.studies, read.approve.bundles) == (
        "B",
        "link.example:8000",
        "listed",
        "own",
    )


def test_the_record_is_anchored_beside_the_workspace(folder):
    read = CentreFile.read(folder / "centres" / "B" / "centre.yaml", complete=False)
    assert (str(read.workspace), str(read.log.anchor)) == (
        "/var/lib/polycentre",
        "/var/lib/polycentre-anchor/centre.anchor",
    )


@pytest.mark.parametrize("usual_umask", [0o022, 0o002, 0o000], indirect=True)
def test_a_trial_makes_workspaces_that_its_nodes_accept(tmp_path, usual_umask):
    """Also of a folder that a run has made as any other, and without losing the record's anchor when it starts again."""
    workspace = tmp_path / "run" / "centres" / "A"
    workspace.mkdir(parents=True)
    (tmp_path / "second" / "centres" / "A").mkdir(parents=True)
    for start in ("first", "second"):
        places = {"A": {"workspace": workspace, "cache": tmp_path / "cache"}}
        deployment = trial(OwnProcesses(), tmp_path / start, places, tmp_path / "superlink.log")
        file = CentreFile.read(deployment._nodes["A"].centre_file)
        assert stat.S_IMODE(workspace.stat().st_mode) == 0o700
        Ledger.of(file).record(Job("s", start, "A", "learn", {}), Reply("s", start, "A", "learn"), "A")
    verified = Ledger.of(file).verify()
    assert not verified.problems and len(verified.entries) == 2 and file.log.anchor.parent == workspace.parent


def test_run_again_it_keeps_what_is_there_and_adds_what_is_new(folder):
    (folder / "centres" / "A" / "centre.yaml").write_text("mine: true\n")
    (folder / "operator" / "keys" / "B.pub").write_text("sent by hospital B\n")
    before = {f: f.read_bytes() for f in folder.rglob("*") if f.is_file()}
    assert init(folder, "--centre", "C").exit_code == 0
    after = {f: f.read_bytes() for f in folder.rglob("*") if f.is_file()}
    assert {f: after[f] for f in before} == before
    assert {f.parent.name for f in set(after) - set(before)} == {"C", "keys"}


def test_a_new_name_renews_the_certificate_and_nothing_else(folder):
    before = {f: f.read_bytes() for f in folder.rglob("*") if f.is_file()}
    assert init(folder, "--host", "other.example").exit_code == 0
    changed = {f.name for f in before if f.read_bytes() != before[f]}
    assert changed == {SERVER, "superlink.key"}


def test_a_name_that_is_no_name(tmp_path):
    done = CliRunner().invoke(cli, ["deploy", "init", str(tmp_path), "--centre", "../A", "--host", "x"])
    assert isinstance(done.exception, StudyError) and "--centre '../A' cannot be the name of a centre" in str(
        done.exception
    )
    assert not list(tmp_path.iterdir())


def test_the_operators_file_is_found_by_name_and_by_path(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deployments").mkdir()
    (folder / "operator").rename(tmp_path / "deployments" / "hospitals")
    found = DeploymentFile.find("hospitals")
    assert found == DeploymentFile.find("deployments/hospitals/deployment.yaml")
    assert found.address == "127.0.0.1:8001" and found.root_certificate.is_file() and found.operator_secret.is_file()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"adress": "x"}, "write exactly address, root_certificate, operator_secret"),
        ({"address": 8001}, "each as text"),
        ({"operator_secret": "nowhere"}, "operator_secret: no file"),
    ],
)
def test_an_operators_file_with_a_mistake_is_one_line(change, expected, folder):
    file = folder / "operator" / "deployment.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | change))
    with pytest.raises(StudyError) as problem:
        DeploymentFile.find(str(file))
    assert problem.value.exit_status == 2 and expected in str(problem.value) and "\n" not in str(problem.value)
