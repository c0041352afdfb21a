"""What the page says of a deployment: each node's time, the time it was away, what it runs, and what it refused."""

import re

import fake_run
import pytest

from reports.html import build_report
from reports.run_record import RunRecord
from reports.sections.deployment import deployment_section

REFUSED = "centre C refused train b_flow by its own policy (strategies)"


@pytest.fixture(scope="module")
def record(tmp_path_factory) -> RunRecord:
    made = fake_run.deployed(tmp_path_factory.mktemp("runs") / "deployed")
    build_report(made)
    return made


@pytest.fixture(scope="module")
def section(record):
    return deployment_section(record.events(), record.environment, ["A", "B", "C"])


def rows_of(table):
    return {row[0]: dict(zip(table["header"], row, strict=True)) for row in table["rows"]}


def test_each_node_with_its_share_its_jobs_and_its_absences(section):
    rows = rows_of(section["table"])
    assert list(rows) == ["A", "B", "C"]
    # Nine seconds of computing a job, and two and a half to four and a half before and one and a half after it.
    assert rows["A"]["Computing"] == "65 %" and rows["A"]["Seconds a job (median)"] == "9 s"
    assert [rows[c]["Latency (median)"] for c in "AB"] == ["5 s", "5 s"]
    assert [rows[c]["Jobs done"] for c in "ABC"] == ["14", "8", "14"]
    assert [(rows["C"]["refused"], rows["C"]["failed"])] == [("3", "1")]
    assert [(rows[c]["Times lost"], rows[c]["found again"]) for c in "ABC"] == [("0", "0"), ("1", "1"), ("1", "0")]
    assert rows["B"]["Away"] == "1 min 15 s" and rows["A"]["To the centre"] == "23.8 MB"
    facts = dict(section["numbers"])
    assert facts["Deployment"] == "hospitals" and facts["Nodes' time spent computing"] == "64 %"


def test_what_nodes_say_of_themselves_where_they_say_it(record, section):
    rows = rows_of(section["nodes"])
    assert rows["A"] == {"Centre": "A", "Clock": "+97.4 s", "Code": "the server's", "Versions": "the server's"}
    assert rows["B"]["Versions"] == "torch 2.12.1" and rows["B"]["Clock"] == "\N{MINUS SIGN}0.2 s"
    events = record.events()
    other = [
        e | {"code": "feedfeed", "clock_off_s": None, "versions": None} if e["event"] == "node" else e for e in events
    ]
    changed = rows_of(deployment_section(other, record.environment, ["A", "B", "C"])["nodes"])
    assert changed["A"] == {"Centre": "A", "Clock": "–", "Code": "feedfeed", "Versions": "–"}
    silent = deployment_section([e for e in events if e["event"] != "node"], record.environment, ["A", "B", "C"])
    assert silent["nodes"] is None and silent["table"] == section["table"]


def test_the_picture_says_the_shares(section):
    assert section["lanes"].alt.endswith("A 65 %, B 61 %, C 68 %")


def test_a_simulation_has_no_such_section(record):
    simulated = [e | {"deployment": ""} if e["event"] == "run_started" else e for e in record.events()]
    assert deployment_section(simulated, record.environment, ["A", "B", "C"]) is None


def test_a_deployment_that_has_only_begun(record):
    begun = deployment_section(record.events()[:1], record.environment, ["A", "B"])
    assert begun["lanes"] is None and rows_of(begun["table"])["A"]["Computing"] == "–" and begun["refusals"] == []


def test_page_and_table_name_refusals_as_refusals(record):
    page = (record.folder / "report.html").read_text(encoding="utf-8")
    text = re.sub(r"<[^>]+>", "", page).replace("&#39;", "'")
    assert f"Refused: {REFUSED}" in text and "round 15 and 1 other job: it does not work" in text
    assert "train b_flow at C:" not in text, "a refusal is no failure"
    assert "train b_gan at C: centre 'C' could not train b_gan: the loss became NaN" in text
    assert 'id="deployment"' in page and 'href="#deployment"' in page
    assert REFUSED in (record.folder / "table.md").read_text(encoding="utf-8")
