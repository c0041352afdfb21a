"""The plug-ins of a study at a centre: each reason for a refusal has its code and its sentence, and nothing is imported for it."""

import os
import sys
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest

from basics.plugins import Gate, Identity, Plugin, gate
from clients.app import answer
from clients.centre_file import CentreFile, CentreFileError
from clients.node import Refusal
from clients.plugins import check, compare
from federation.wire.code_digest import code_digest
from federation.wire.errors import explain
from federation.wire.job import IDENTIFY, Job

OFFER = {"metrics": {"seven": "my_things.things:ITEM"}}


@pytest.fixture
def right(install):
    """The identity of an installed plug-in that must not be imported."""
    return install("my-things", OFFER, text="raise SystemExit('imported')").identity


@pytest.fixture
def listing(centre_file, tmp_path):
    """Function: the settings of centre B with a list of plug-ins."""
    return lambda *plugins: CentreFile.read(centre_file(tmp_path / "B", plugins=[asdict(one) for one in plugins]))


def refusal(file, wanted):
    with pytest.raises(Refusal) as refused:
        compare(None if file is None else Gate(file.allowed), wanted)
    assert "my_things" not in sys.modules
    return refused.value.code, explain("B", refused.value.code, "", refused.value.numbers)


def test_what_is_listed_installed_and_meant_may_run(right, listing):
    compare(Gate(listing(right).allowed), right)
    compare(Gate(listing(replace(right, name="My.Things")).allowed), right)
    compare(None, right)


def test_each_reason_has_its_sentence(right, listing):
    listed, digest = listing(right), "c" * 64
    assert refusal(listing(), right) == (
        "plugin_not_listed",
        "centre 'B' does not allow plug-in 'my-things' 1.0, which the study uses; its administrator can list it in centre.yaml "
        "(`polycentre centre plugins` prints the lines)",
    )
    gone = Identity("gone-things", "2.0", digest)
    assert refusal(listing(gone), gone) == (
        "plugin_missing", "centre 'B' lacks plug-in 'gone-things' 2.0; install that version there",
    )  # fmt: skip
    assert refusal(None, gone)[0] == "plugin_missing"
    altered = (
        "plugin_altered",
        "centre 'B' has plug-in 'my-things' with other files than its centre.yaml lists; its administrator can install it again, or "
        "list the digest that `polycentre centre plugins` shows",
    )
    assert refusal(listing(replace(right, digest=digest)), right) == altered
    assert refusal(listing(replace(right, version="1.1")), right) == altered
    for other in (replace(right, version="1.1"), replace(right, digest=digest)):
        assert refusal(listed, other) == (
            "plugin_differs",
            f"centre 'B' has another plug-in 'my-things' (version 1.0, digest {right.digest[:16]}) than the study uses (version "
            f"{other.version}, digest {other.digest[:16]}); install the same version on both sides",
        )
        assert refusal(None, other)[0] == "plugin_differs"


@pytest.mark.parametrize("kind", [IDENTIFY, "survey_data"])
def test_a_node_refuses_whatever_is_asked(kind, right, listing, tmp_path):
    listing()
    job = Job("s", "u", "B", kind, {}, code=code_digest(), plugins=[asdict(right)])
    reply = answer(job, {"centre_file": str(tmp_path / "B" / "centre.yaml")})
    assert (reply.code, reply.numbers["plugin"], reply.numbers["at"]) == ("plugin_not_listed", "my-things", "B")
    listing(right)
    reply = answer(job, {"centre_file": str(tmp_path / "B" / "centre.yaml")})
    assert reply.code == ("ok" if kind == IDENTIFY else "study_not_approved")


@pytest.mark.parametrize(
    "plugins", [[1], [{}], [{"name": "x", "version": "1", "digest": 3}], [{"name": "x", "version": "1", "digest": "d" * 129}],
                [{"name": "x", "version": "1", "digest": "d", "more": "x"}], ["x"],
                [{"name": "x.y", "version": "1", "digest": "d"}, {"name": "X-Y", "version": "1", "digest": "e"}],
                [{"name": f"x{i}", "version": "1", "digest": "d"} for i in range(65)]],
)  # fmt: skip
def test_a_job_that_does_not_say_what_it_means(plugins, listing, tmp_path):
    listing()
    job = Job("s", "u", "B", IDENTIFY, {}, plugins=plugins)
    assert answer(job, {"centre_file": str(tmp_path / "B" / "centre.yaml")}).code == "malformed"


@pytest.mark.parametrize(
    ("plugins", "words"),
    [
        ([{"name": "x", "version": "1.0"}], "plugins.0.digest: is missing; add it"),
        ([{"name": "x", "version": 1.0, "digest": "a" * 64}], "plugins.0.version: 1.0 input should be a valid string"),
        ([{"name": "x", "version": "1.0", "digest": "12ab"}],
         "plugins.0.digest: '12ab' is not the digest of a plug-in; write its 64 hexadecimal digits, as `polycentre centre plugins` "
         "shows them"),
        ([{"name": "x", "version": "1.0", "digest": "a" * 64, "path": "/"}],
         "plugins.0.path: unknown key; known keys: name, version, digest"),
        ([{"name": "x-y", "version": "1.0", "digest": "a" * 64}, {"name": "X_y", "version": "1.0", "digest": "b" * 64}],
         "plugins: lists 'x-y' twice; keep the lines of the plug-in that is to run here"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_list(plugins, words, centre_file, tmp_path):
    path = centre_file(tmp_path, plugins=plugins)
    with pytest.raises(CentreFileError) as problem:
        CentreFile.read(path)
    assert str(problem.value) == f"{path}: {words}"


def test_a_node_reads_the_files_of_a_plugin_once_a_job(right, centre_file, tmp_path, monkeypatch):
    centre_file(tmp_path / "B", plugins=[asdict(right)], release=None, data=None, approve={"studies": "any"})
    job = Job("s", "u", "B", IDENTIFY, {}, code=code_digest(), plugins=[asdict(right)])
    read, digest = [], Plugin.digest
    monkeypatch.setattr(Plugin, "digest", lambda self: read.append(self.name) or digest(self))
    for _ in range(2):
        read.clear()
        assert answer(job, {"centre_file": str(tmp_path / "B" / "centre.yaml")}).code == "ok"
        # Reading the file opens and closes a gate of its own, and asks for no plug-in of a file that names none of its offers.
        assert read == ["my-things"]


def test_a_node_does_not_go_by_the_times_of_files(right, listing, site, tmp_path):
    """An edit that keeps size and time of change is seen at a node; a simulation may miss it."""
    listing(right)
    job = Job("s", "u", "B", IDENTIFY, {}, code=code_digest(), plugins=[asdict(right)])
    config = {"centre_file": str(tmp_path / "B" / "centre.yaml")}
    compare(None, right)
    assert answer(job, config).code == "ok"
    things = site / "my_things" / "things.py"
    before = things.stat()
    things.write_text(things.read_text().replace("imported", "IMPORTED"))
    os.utime(things, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert answer(job, config).code == "plugin_altered"
    compare(None, right)
    os.utime(things, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert refusal(None, right)[0] == "plugin_differs"


def test_a_deployed_node_without_a_file_lists_nothing(right):
    node = SimpleNamespace(deployed=True, file=None, centre="B")
    job = Job("s", "u", "B", IDENTIFY, {}, plugins=[asdict(right)])
    assert gate() is None
    with pytest.raises(Refusal) as refused:
        check(node, job)
    assert refused.value.code == "plugin_not_listed"


def test_a_centres_own_data_may_be_of_a_plugin_that_it_lists_only(right, install, centre_file, tmp_path):
    source = """
from typing import Literal
from data_partitions import Cohort, DataSource

class Thing(DataSource):
    source: Literal["thing"] = "thing"
    def files_digest(self): return ""
    def load(self, centre, seed, cache=None, task=None): return Cohort([])
"""
    own = install("own-data", {"sources": {"thing": "own_data.things:Thing"}}, text=source).identity
    data = {"source": "thing"}
    path = centre_file(tmp_path, data=data)
    with pytest.raises(CentreFileError, match="data.source: 'thing' is not a source of data; sources: phantom, folder"):
        CentreFile.read(path)
    assert "own_data.things" not in sys.modules
    assert CentreFile.read(centre_file(tmp_path, data=data, plugins=[asdict(own)])).data == data
    strategies = {"strategies": ["gossip"]}
    with pytest.raises(CentreFileError, match="and those of the plug-ins that `plugins` lists"):
        CentreFile.read(centre_file(tmp_path, release=strategies))
