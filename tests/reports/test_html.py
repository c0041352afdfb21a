"""The page: complete, self-contained, honest about its state, and readable by a browser that can ask nobody."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import fake_run
import pytest

from metrics import METRICS, Metric
from reports.compare import compare
from reports.html import build_report
from reports.run_record import RunRecord
from reports.section import Section
from reports.sections import SECTIONS

# Where a test does not look at the numbers.
SMALL = {"repeats": 1, "patients": 12, "classifiers": ("cnn_small",)}


class Page(HTMLParser):
    """What a page refers to, its pictures and its text."""

    def __init__(self, text: str):
        super().__init__()
        self.references: list[str] = []
        self.pictures: list[dict[str, str | None]] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)
        self.references += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        if tag == "img":
            self.pictures.append(dict(attrs))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.text += data


@pytest.fixture(scope="module")
def complete(tmp_path_factory) -> RunRecord:
    record = fake_run.make(tmp_path_factory.mktemp("runs") / "complete")
    assert build_report(record) == record.folder / "report.html"
    return record


@pytest.fixture(scope="module")
def page(complete) -> Page:
    return Page((complete.folder / "report.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def federated(tmp_path_factory) -> RunRecord:
    record = fake_run.make(tmp_path_factory.mktemp("runs") / "federated", federated=True)
    build_report(record)
    return record


def test_everything_is_there(page):
    for words in (
        "Complete: every unit of work finished", "fake-three-centres", "0123456789abcdef", "Imaginary CPU",
        "Adding b_flow helped: it changed AUROC by", "Adding b_wgan hurt", "With 3 repeats all spreads are rough",
        "180 images of 90 patients, 40 % lesion (the positive class)", "out of domain",
        "real images moved: upper bound",
        "more_home", "control", "3/3 better", "2 groups of patients spanned centres", "they stay in the hospital",
        "Messages", "Who worked when", "Resolved scenario", "not a medical device",
        "Computed phantoms, not patients: A, B, C", "film", "<5",
    ):  # fmt: skip
        assert words in page.text, words
    assert page.tags.count("table") == 2 + 3 + 1  # results, survey and partition, bytes
    # 2 comparisons, 2 synthetic grids each beside a real one, 2 more real ones, curves of both kinds, time line, bytes
    assert len(page.pictures) == 2 + 4 + 2 + 2 + 1 + 1


def test_it_refers_to_nothing_outside_itself(complete, federated):
    for record in (complete, federated):
        text = (record.folder / "report.html").read_text(encoding="utf-8")
        page = Page(text)
        assert page.references
        assert all(r.startswith(("data:", "#")) for r in page.references), page.references
        assert "default-src 'none'" in text
        assert not re.search(r"url\(|@import", text) and "script" not in page.tags


def test_anchors_lead_somewhere(complete, federated):
    for record in (complete, federated):
        text = (record.folder / "report.html").read_text(encoding="utf-8")
        for reference in Page(text).references:
            if reference.startswith("#"):
                assert f'id="{reference[1:]}"' in text


def test_pictures_say_what_they_show(page, federated):
    more = Page((federated.folder / "report.html").read_text(encoding="utf-8"))
    for picture in page.pictures + more.pictures:
        assert picture["alt"] and len(picture["alt"]) > 20
        assert (picture["src"] or "").startswith(("data:image/svg+xml;base64,", "data:image/png;base64,"))


def test_time_leaves_out_the_night(page):
    assert "in 2 sessions" in page.text
    assert re.search(r"Running time\s*7 min", page.text)


def test_the_same_record_gives_the_same_table_and_figures(complete):
    table = (complete.folder / "table.md").read_bytes()
    first = Page((complete.folder / "report.html").read_text(encoding="utf-8")).pictures
    build_report(complete)
    assert (complete.folder / "table.md").read_bytes() == table
    assert Page((complete.folder / "report.html").read_text(encoding="utf-8")).pictures == first


def test_failed_run_says_so_at_the_top(tmp_path):
    record = fake_run.make(tmp_path / "run", status="failed", resumed=False, **SMALL)
    build_report(record)
    text = Page((record.folder / "report.html").read_text(encoding="utf-8")).text
    top = text[: text.index("Findings")]
    assert "Failed" in top and "the loss became NaN at step 40" in top and "train b_wgan at B" in top
    assert f"polycentre run {record.folder / 'scenario.yaml'} --out {record.folder} --resume" in top
    assert "Complete" not in top


def test_interrupted_run_has_a_report_too(tmp_path):
    record = fake_run.make(tmp_path / "run", status="interrupted", resumed=False, **SMALL)
    build_report(record)
    text = Page((record.folder / "report.html").read_text(encoding="utf-8")).text
    assert "Incomplete" in text and "--resume" in text and "No classifier was tested yet" in text
    assert "No classifier was tested yet" in (record.folder / "table.md").read_text(encoding="utf-8")


def test_a_run_on_a_ray_cluster_names_it_and_goes_on_there(tmp_path):
    record = RunRecord.create(tmp_path / "run", "name: x\n", {})
    nodes = [{"name": name, "cpus": 16.0, "gpus": 0.0} for name in ("alpha", "beta")]
    record.write_environment(record.environment | {"ray_cluster": {"address": "10.0.0.1:6379", "nodes": nodes}})
    build_report(record)
    text = Page((record.folder / "report.html").read_text(encoding="utf-8")).text
    assert "on a Ray cluster of 2 nodes with 32 CPUs" in text and "--ray 10.0.0.1:6379 --out" in text


def test_units_of_settings_that_were_changed_since_are_left_out(tmp_path):
    record = fake_run.make(tmp_path / "run", resumed=False, **SMALL)
    stale = {"kind": "survey", "centre": "Z", "result": {"tasks": {"lesion": {"card": {"patients": 5}}}}}
    record.write_unit("stale", stale)
    build_report(record)
    text = Page((record.folder / "report.html").read_text(encoding="utf-8")).text
    assert "survey of the data" in text and "Z" not in text[text.index("What the centres hold") : text.index("Notes")]


def test_run_that_died_at_once(tmp_path):
    record = RunRecord.create(tmp_path / "run", "name: x\n", {})
    build_report(record)
    text = Page((record.folder / "report.html").read_text(encoding="utf-8")).text
    assert "Incomplete" in text and "The record holds no survey" in text


def test_names_from_outside_are_text_and_not_markup(tmp_path):
    record = RunRecord.create(tmp_path / "run", 'name: "<script>alert(1)</script>"\n', {"cpu": "<b>x</b>"})
    record.event("run_started", run_id="x", resumed=False)
    record.event("note", centre="A", text='"><img src=http://example.org/x.png>')
    build_report(record)
    page = Page((record.folder / "report.html").read_text(encoding="utf-8"))
    assert "script" not in page.tags and "b" not in page.tags and page.pictures == []


def test_many_test_centres_and_repeats(tmp_path):
    record = fake_run.make(tmp_path / "run", resumed=False, **SMALL)
    rows = record.results()
    more = [rows[rows.tested_on == "C"].assign(tested_on=name) for name in ("D", "E", "F")]
    record.write_results([row for table in [rows, *more] for row in table.to_dict("records")])  # type: ignore[misc]
    build_report(record)
    page = Page((record.folder / "report.html").read_text(encoding="utf-8"))
    assert page.tags.count("table") == 3 + 3 + 1  # two test centres a table
    assert "1 repeat cannot show" in page.text


def test_federations(federated):
    text = (federated.folder / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    for words in (
        "Convergence", "average, FD\N{NON-BREAKING HYPHEN}Texture", "The smallest centre (C, 384 images) reached the target",
        "(paper: 1.6)", "C was not measured alone", "not reached", "Simulated time", "per simulated second",
        "Which generators were chosen", "6 of 6", "83 %", "Messages", "lines differ by more than 5 %", "≠ 23", "Steps, expected",
    ):  # fmt: skip
        assert words in page.text, words
    trouble = re.compile(
        r"async: \d+ of 72 jobs were lost, .* C was gone from 310 s on, B came back with an empty state at "
    )
    table = (federated.folder / "table.md").read_text(encoding="utf-8")
    assert len(trouble.findall(table)) == 2  # one for each classifier's tables
    results = text[text.index('id="results"') : text.index('id="selection"')]
    assert len(trouble.findall(results)) == 2 and len(trouble.findall(text[text.index('id="simulated"') :])) == 1
    assert "Arrays travelled as fp16, with a relative error of 1.2e-4." in table and "average:" not in table
    assert page.tags.count("table") == 6 + 1 + 1 + 3  # selection, convergence, summary and two federations
    assert len(page.pictures) == 12 + 1 + 2  # convergence, lanes of two federations


def test_one_table_makes_the_page_and_its_navigation(tmp_path, monkeypatch):
    record = RunRecord.create(tmp_path / "run", "name: x\n", {})
    extra = Section("weather", "Weather", "The weather", lambda context: {"sky": "<grey>"}, "<p>{{ sky }}</p>")
    never = Section("never", "Never", "Never", lambda context: None, "")
    monkeypatch.setattr("reports.html.SECTIONS", (SECTIONS[-1], never, extra, SECTIONS[0]))
    text = build_report(record).read_text(encoding="utf-8")
    assert re.findall(r'<a href="#(\w+)">', text) == ["scenario", "weather", "findings"]
    assert re.findall(r'<section id="(\w+)">', text) == ["scenario", "weather", "findings"]
    assert "<h2>The weather</h2>" in text and "<p>&lt;grey&gt;</p>" in text
    assert len({section.anchor for section in SECTIONS}) == len(SECTIONS)


def test_a_metric_of_one_line_is_in_table_and_page(tmp_path, monkeypatch):
    def brier(labels, probability):
        return float(((probability[:, 1] - labels) ** 2).mean())

    metric = Metric("brier", "Brier score", brier, needs_two_classes=False, higher_is_better=False, unit="number")
    monkeypatch.setitem(METRICS.builtin, "brier", metric)
    record = fake_run.make(tmp_path / "run", resumed=False, **(SMALL | {"repeats": 2}))
    build_report(record)
    mean = record.results().query("metric == 'brier' and arm == 'none' and tested_on == 'A'")["value"].mean()
    table = re.sub(r" +", " ", (record.folder / "table.md").read_text(encoding="utf-8"))
    row = next(line for line in table.splitlines() if line.startswith("| none (baseline)"))
    assert "| AUPRC | Brier score (lower is better) | AUROC vs baseline |" in table and f" {mean:.3g} (" in row
    page = Page((record.folder / "report.html").read_text(encoding="utf-8")).text
    for text in (table, page):
        assert "Brier score (lower is better)" in text and "Not in percent: Brier score." in text
    assert f"{mean:.3g}" in page


def test_sections_without_anything_to_show_are_left_out(page):
    for words in ("Convergence", "Simulated time", "were chosen", "expected"):
        assert words not in page.text, words


def test_empty_federation_files_are_as_none(tmp_path):
    record = RunRecord.create(tmp_path / "run", "name: x\n", {})
    record.write_convergence([])
    record.write_virtual_time([])
    record.write_federations([])
    record.write_expected([])
    build_report(record)
    text = Page((record.folder / "report.html").read_text(encoding="utf-8")).text
    assert "Convergence" not in text and "Simulated time" not in text and "Messages" not in text


def test_trouble_of_an_arm_that_no_table_shows_is_among_the_findings(tmp_path):
    record = RunRecord.create(tmp_path / "run", "name: x\ntask: {label: lesion}\narms:\n" + fake_run.FEDERATED, {})
    record.write_federations([fake_run.federation_entry("async")])
    build_report(record)
    text = Page((record.folder / "report.html").read_text(encoding="utf-8")).text
    findings = text[text.index("No classifier was tested yet") : text.index("What the centres hold")]
    assert "C was gone from 310 s on" in findings


def test_a_federation_of_many_centres(tmp_path):
    record = fake_run.many(tmp_path / "run", centres=120, jobs=400)
    build_report(record)
    text = (record.folder / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    for words in (
        "The smallest centre (c0000, 10 images)", "Shown are the 20 of 120 centres", "all: median", "all 120",
        "Namely c0017, gan round: 1 instead of 3 messages", "The 20 of 120 centres with the most",
    ):  # fmt: skip
        assert words in page.text, words
    assert "the 80 busiest of 120 centres" in svg_texts(page) and len(text) < 1_500_000
    rows = page.tags.count("tr") - 2 * (120 + 1)  # but for the survey's
    assert rows < 120


def svg_texts(page: Page) -> str:
    """The SVG sources of all pictures, in which matplotlib keeps the texts as comments."""
    sources = [(p["src"] or "").split(",", 1) for p in page.pictures]
    return "".join(base64.b64decode(body).decode() for head, body in sources if "svg" in head)


def test_names_of_federations_are_text_and_not_markup(tmp_path):
    evil = "<script>alert(1)</script>"
    record = RunRecord.create(tmp_path / "run", "name: x\n", {})
    record.event("run_started", run_id="x", resumed=False)
    who = {"unit": "u", "kind": evil, "centre": evil, "label": evil}
    record.event("unit_finished", **who, started=1.0, finished=2.0, seconds=1.0, bytes_down=5, bytes_up=5, cached=False)
    measured = {"arm": evil, "task": evil, "series": "federation", "centre": evil, "round": 1, "images_seen": 5,
                "virtual_s": 1.0, "metric": evil, "value": 3.0, "floor": 1.0}  # fmt: skip
    record.write_convergence([measured])
    record.write_virtual_time([{
        "arm": evil, "task": evil, "strategy": evil, "centre": evil, "number": 0, "kind": evil, "sent_s": 0.0,
        "started_s": 0.0, "finished_s": 1.0, "outcome": "used", "staleness": 0,
    }])  # fmt: skip
    record.write_federations([{
        "arm": evil, "task": evil, "strategy": evil, "rounds_or_updates": 1, "jobs": 1, "used": 0, "lost": 1, "late": 0,
        "stale": 0, "gone": [{"centre": evil, "from_s": 0.5}], "state_lost": [{"centre": evil, "number": 0}],
        "transport": {"how": evil, "relative_error": 0.1}, "notes": [evil], "failed": evil,
    }])  # fmt: skip
    record.write_expected([{"centre": evil, "kind": evil, "messages": 9, "bytes_down": 1, "bytes_up": 1, "steps": 1}])
    cell = {"arm": evil, "receiver": evil, "task": evil}
    record.write_unit("u", {"kind": "learn", "result": {"cell": cell, "selected": {evil: 1.0}}})
    build_report(record)
    page = Page((record.folder / "report.html").read_text(encoding="utf-8"))
    assert "script" not in page.tags and page.text.count(evil) > 10


def test_comparison_of_federated_runs(tmp_path, complete, federated):
    page = Page(compare([complete, federated], tmp_path / "compare.html").read_text(encoding="utf-8"))
    assert re.search(r"federated: async: \d+ of 72 jobs were lost", page.text) and "complete: " not in page.text
    assert "average" in page.text and "real images moved: upper bound" in page.text


def test_comparison_of_runs(tmp_path, complete):
    other = fake_run.make(tmp_path / "other", resumed=False, **(SMALL | {"repeats": 4}))
    interrupted = fake_run.make(tmp_path / "unfinished", status="interrupted", **SMALL)
    path = compare([complete, other, interrupted], tmp_path / "comparison" / "compare.html")
    page = Page(path.read_text(encoding="utf-8"))
    for words in (
        "complete",
        "other",
        "unfinished",
        "repeats",
        "unfinished is not complete",
        "4/4 better",
        "tested at C (out of domain)",
    ):
        assert words in page.text, words
    assert all(r.startswith(("data:", "#")) for r in page.references)
    same = Page(compare([complete, complete]).read_text(encoding="utf-8"))
    assert "the resolved scenarios are equal" in same.text and "complete (2)" in same.text


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on this machine; install the package chromium to run this test"
)


def browse(page: Path, scratch: Path) -> tuple[str, list[str]]:
    """Open a local page: (the document as the browser has it, addresses that the page asked for over the network)."""
    log = scratch / "net.json"
    run = subprocess.run(
        [
            str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
            "--disable-component-update", "--disable-sync", "--no-first-run", "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--user-data-dir={scratch / 'profile'}", f"--log-net-log={log}", "--virtual-time-budget=3000",
            "--dump-dom", page.as_uri(),
        ],
        capture_output=True, text=True, timeout=90, check=True,
    )  # fmt: skip
    assert "violates the following Content Security Policy" not in run.stderr
    asked = [entry["params"] for entry in json.loads(log.read_text())["events"] if "url" in entry.get("params", {})]
    # The browser asks for services of its own; what a local page asks for is kept under the page's key, file://.
    own = [request["url"] for request in asked if "file://" in str(request.get("network_isolation_key"))]
    return run.stdout, [url for url in own if not url.startswith(("file:", "data:"))]


@needs_chromium
def test_a_browser_shows_it_and_asks_nobody(complete, tmp_path):
    control = tmp_path / "control.html"
    control.write_text('<img src="http://example.org/x.png">')
    assert browse(control, tmp_path)[1] == ["http://example.org/x.png"]  # it would be seen
    document, asked = browse(complete.folder / "report.html", tmp_path)
    assert asked == []
    page = Page(document)
    assert "Adding b_flow helped" in page.text and page.tags.count("table") == 6 and len(page.pictures) == 12


@needs_chromium
@pytest.mark.parametrize(("run", "pictures"), [("complete", 12), ("federated", 15)])
def test_a_browser_draws_every_picture(run, pictures, request, tmp_path):
    """A script in a copy of the page, without its policy, writes the widths of the decoded pictures into the title."""
    record = request.getfixturevalue(run)
    text = (record.folder / "report.html").read_text(encoding="utf-8")
    text = re.sub(r"<meta http-equiv=[^>]*>", "", text)
    script = "<script>onload=()=>{document.title=[...document.images].map(i=>i.naturalWidth).join()}</script></body>"
    copy = tmp_path / "copy.html"
    copy.write_text(text.replace("</body>", script), encoding="utf-8")
    title = re.search(r"<title>(.*?)</title>", browse(copy, tmp_path)[0])
    assert title is not None
    widths = [int(w) for w in title[1].split(",")]
    assert len(widths) == pictures and min(widths) > 100
