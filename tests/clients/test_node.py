"""Who a node is: a real one is the centre that its own configuration names, any other plays whom a job names."""

import time

import pytest

from clients.app import answer
from clients.node import Node, Refusal
from federation.wire.code_digest import code_digest
from federation.wire.errors import explain
from federation.wire.job import IDENTIFY, PROTOCOL, Job

PLAYS = {"partition-id": 0, "num-partitions": 2}


@pytest.fixture
def real(tmp_path):
    """Configuration of the deployed node of centre B."""
    return {"centre": "B", "workspace": str(tmp_path / "hospital"), "cache": str(tmp_path / "cache")}


def a_job(kind="test_classifier", centre="B", **fields):
    return Job("s", "u", centre, kind, {}, **({"code": code_digest()} | fields))


def everything_below(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_deployed_node_ignores_what_a_job_says_about_places(real, tmp_path):
    place = {"out": str(tmp_path / "elsewhere"), "cache": str(tmp_path / "elsewhere")}
    node = Node.of(a_job(place=place), real)
    assert (node.centre, node.workspace, node.cache) == ("B", tmp_path / "hospital", tmp_path / "cache")
    assert node.deployed and not (tmp_path / "elsewhere").exists()


def test_a_simulated_node_plays_the_jobs_centre_in_the_run_folder(tmp_path):
    place = {"out": str(tmp_path / "run"), "cache": str(tmp_path / "cache")}
    for centre in ("A", "B"):
        node = Node.of(a_job(centre=centre, place=place), PLAYS)
        assert (node.centre, node.workspace) == (centre, tmp_path / "run" / "centres" / centre)
        assert node.workspace.is_dir() and not node.deployed


def test_a_job_for_another_centre_is_refused_and_logged(real, tmp_path):
    place = {"out": str(tmp_path / "run"), "cache": str(tmp_path / "run")}
    reply = answer(a_job("survey_data", "C", place=place), real)
    assert (reply.code, reply.body) == ("not_addressed", {})
    assert "another centre" in explain("C", reply.code, "survey of C", reply.numbers)
    assert "not_addressed" in (tmp_path / "hospital" / "node.log").read_text()
    assert everything_below(tmp_path) == ["hospital", "hospital/ledger.jsonl", "hospital/node.log"]


@pytest.mark.parametrize("kind", ["send_patches", "receive_patches"])
def test_a_deployed_node_moves_no_real_patches(kind, real, tmp_path):
    reply = answer(a_job(kind, label="real patches"), real)
    assert reply.code == "policy" and not reply.arrays
    text = explain("B", reply.code, "real patches", reply.numbers)
    assert text == "centre 'B' refuses real patches by its own policy (real patches stay where they are)"
    assert everything_below(tmp_path) == ["hospital", "hospital/ledger.jsonl", "hospital/node.log"]
    # The same job is not refused by a node that plays the centre; it fails later, for want of a body.
    place = {"out": str(tmp_path / "run"), "cache": str(tmp_path / "run")}
    assert answer(a_job(kind, place=place), PLAYS).code in ("bad_body", "wrong_arrays")


@pytest.mark.parametrize("code", ["", "0000"])
def test_identify_is_answered_whoever_is_addressed_and_whatever_code_the_server_runs(code, real):
    reply = answer(a_job(IDENTIFY, "unknown", code=code), real)
    assert reply.ok and reply.body["centre"] == "B"
    assert (reply.body["protocol"], reply.body["code"]) == (PROTOCOL, code_digest())
    assert set(reply.body["versions"]) == {"python", "polycentre", "flwr", "torch", "numpy"}
    assert abs(reply.body["clock"] - time.time()) < 60 and len(reply.body["bundle"]) == 64
    for other in ("0000", ""):
        assert answer(a_job("survey_data", code=other), real).code == "code_mismatch"


def test_replies_of_a_deployed_node_do_not_name_its_machine(real, monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "ward-7.hospital.example")
    assert all("ward-7" not in answer(a_job(kind), real).worker for kind in ("test_classifier", IDENTIFY))


@pytest.mark.parametrize(
    ("config", "lacks"),
    [
        ({}, "centre"),
        (PLAYS, "centre"),  # a node of a simulation, whose server believes to be in a deployment
        ({"centre": "B"}, "workspace"),
        ({"centre": "B", "workspace": "relative", "cache": "/c"}, "workspace"),
        ({"centre": "B", "workspace": "/w"}, "cache"),
    ],
)
def test_a_node_that_is_not_told_enough_says_what_it_lacks(config, lacks):
    reply = answer(a_job(IDENTIFY), config)
    assert (reply.code, reply.numbers) == ("bad_node_config", {"key": lacks})
    assert f"lacks {lacks}" in explain("7", reply.code, "", reply.numbers, subject="node")


def test_a_node_without_a_configuration_does_not_let_itself_be_placed(tmp_path):
    """A hospital's node that was started without its configuration must not write where a server tells it to."""
    place = {"out": str(tmp_path / "run"), "cache": str(tmp_path / "run")}
    with pytest.raises(Refusal, match="bad_node_config"):
        Node.of(a_job("send_patches", place=place), {})
    assert everything_below(tmp_path) == []


def test_a_workspace_that_cannot_be_made(real, tmp_path):
    (tmp_path / "hospital").write_text("a file")
    assert answer(a_job(), real).code == "no_workspace"
