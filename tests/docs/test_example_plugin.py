"""The example plug-in of docs/, installed into an environment of its own: everything in it runs, and at a node only where it is listed."""

import csv
import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from basics.plugins import installed

CHECKOUT = Path(__file__).resolve().parents[2]
EXAMPLE = CHECKOUT / "docs" / "example-plugin"
NAME = "polycentre-example"
USES = ["source stripes", "model pixel_gaussian", "strategy averages", "classifier two_layers", "metric brier"]


@pytest.fixture(scope="module")
def place(tmp_path_factory, make_environment):
    """A folder with study.yaml and an environment, venv/, in which the example is installed; its packages are in `site`."""
    folder = tmp_path_factory.mktemp("example")
    site = make_environment(folder / "venv")
    shutil.copytree(EXAMPLE, folder / "source")  # a build writes beside what it builds
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", *offline, "--target", site, folder / "source"], check=True, timeout=120
    )  # fmt: skip
    shutil.copy(EXAMPLE / "study.yaml", folder)
    (folder / "site").symlink_to(site)
    return folder


def inside(place, *arguments, status=0, timeout=300):
    """A program in the environment; (stdout, stderr)."""
    environment = os.environ | {"POLYCENTRE_CACHE": str(place / "cache"), "COLUMNS": "200"}
    environment.pop("PYTHONPATH", None)
    command = [place / "venv" / "bin" / "python", *map(str, arguments)]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == status, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout, done.stderr


@pytest.fixture(scope="module")
def run(place):
    """The study of the example, in one process."""
    inside(place, "-m", "polycentre", "run", "study.yaml", "--engine", "inprocess", "--out", "run")
    return place / "run"


@pytest.fixture
def identity(place, monkeypatch):
    """Function: the example as it is installed in the environment now; nothing of it is imported here."""

    def find(site=None):
        with monkeypatch.context() as searching:
            searching.syspath_prepend(site or (place / "site").resolve())
            return next(plugin.identity for plugin in installed() if plugin.name == NAME)

    return find


@pytest.fixture
def another(place):
    """Function: change a file of the installed example for the time of a test."""
    changed = {}

    def change(file, before, after):
        path = next((place / "site").glob(file))
        changed.setdefault(path, path.read_text())
        assert before in path.read_text()
        path.write_text(path.read_text().replace(before, after))

    yield change
    for path, text in changed.items():
        path.write_text(text)


def test_its_model_classifier_source_metric_and_strategy_run(run, place, identity):
    with open(run / "results.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {(row["arm"], row["strategy"]) for row in rows} == {
        ("real", "local"),
        ("generator", "one_shot"),
        ("means", "averages"),
    }
    assert {row["classifier"] for row in rows} == {"two_layers"}
    brier = [float(row["value"]) for row in rows if row["metric"] == "brier"]
    assert len(brier) == 3 and all(0 < value < 0.3 for value in brier)
    used = identity()
    assert (used.name, used.version) == (NAME, "1.0")
    assert json.loads((run / "environment.json").read_text())["plugins"] == [asdict(used) | {"uses": USES}]
    page = (run / "report.html").read_text()
    for words in ("Brier score (lower is better)", "averages of patches", used.digest):
        assert words in page
    assert json.loads((run / "kinds.json").read_text())["metrics"] == [
        {"metric": "brier", "title": "Brier score", "unit": "number", "higher_is_better": False}
    ]


def test_the_report_is_made_again_where_the_plugin_is_not_installed(run, tmp_path):
    from reports.html import build_report
    from reports.run_record import RunRecord

    shutil.copytree(run, tmp_path / "run")
    table = (tmp_path / "run" / "table.md").read_text()
    assert "Brier score (lower is better)" in table
    (tmp_path / "run" / "table.md").unlink()
    build_report(RunRecord.open(tmp_path / "run"))
    assert (tmp_path / "run" / "table.md").read_text() == table


def test_where_it_is_not_installed_the_scenario_says_what_is_missing():
    from scenarios.reader import ScenarioError, read

    with pytest.raises(ScenarioError) as problem:
        read(EXAMPLE / "study.yaml")
    lines = str(problem.value).splitlines()
    missing = "and none that is installed has it (entry points polycentre."
    for start, group in (
        ("centres.A.data: source is 'stripes'; must be one of 'phantom', 'folder'", "sources"),
        (
            "generators.b_pixels.model: 'pixel_gaussian': no model 'pixel_gaussian'; known models: dcgan, wgan_gp",
            "models",
        ),
        ("arms.means: strategy is 'averages'; must be one of 'local', 'one_shot'", "strategies"),
        (
            "study.classifiers.0.model: 'two_layers': no classifier 'two_layers'; known classifiers: cnn, cnn_small",
            "classifiers",
        ),
        ("study.metrics: no metric 'brier'; known metrics: accuracy, balanced_accuracy", "metrics"),
    ):
        (line,) = [line for line in lines if start in line]
        assert line.endswith(f"others come with plug-ins, {missing}{group})"), line


RESUME = """
import contextlib, io, shutil, sys
from pathlib import Path
from polycentre.command_line import main

def resumed():
    sys.argv = ["polycentre", "run", "study.yaml", "--engine", "inprocess", "--out", "again", "--resume"]
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        try:
            main()
            status = 0
        except SystemExit as end:
            status = end.code
    print(status, said.getvalue().strip())

shutil.copytree("run", "again")
(info,) = Path("site").resolve().glob("polycentre_example-*.dist-info")
metric = info.parent / "polycentre_example" / "metric.py"
text, metadata = metric.read_text(), (info / "METADATA").read_text()
metric.write_text(text + "# edited\\n")
resumed()
metric.write_text(text)
(info / "METADATA").write_text(metadata.replace("Version: 1.0", "Version: 1.1"))
moved = info.rename(info.with_name("polycentre_example-1.1.dist-info"))
resumed()
away = moved.rename(info.parent / "away")
resumed()
away.rename(info)
(info / "METADATA").write_text(metadata)
resumed()
"""


def test_a_run_goes_on_with_the_plugin_that_it_was_recorded_with(run, place, identity):
    used = identity()
    out, _ = inside(place, "-c", RESUME)
    lines = [line for line in out.splitlines() if line[:2] in ("0 ", "1 ", "2 ") or line == "0"]
    recorded = f"the run was recorded with plug-in '{NAME}' 1.0 (digest {used.digest[:16]})"
    edited, version, missing, same = lines
    assert (
        edited.startswith(f"2 polycentre: {recorded}, and here is '{NAME}' 1.0 (digest ")
        and used.digest[:16] not in edited[100:]
    )
    assert edited.endswith("); install what was recorded, or start a new run")
    assert version == (
        f"2 polycentre: {recorded}, and here is '{NAME}' 1.1 (digest {used.digest[:16]}); install what was recorded, or start a new run"
    )
    assert missing == (
        f"2 polycentre: --resume: {recorded}, which is not installed here; install that version, or start a new run"
    )
    assert same.startswith("0")
    assert (place / "again" / "results.csv").read_bytes() == (run / "results.csv").read_bytes()


def test_a_plugin_that_a_study_does_not_use_changes_nothing(tiny, place, conduct_in_process, tmp_path, monkeypatch):
    scenario = tiny("arms={real: {strategy: local}}", "generators={}", "repeats=1", "study.test_on=[C]")
    done, record = conduct_in_process(scenario, tmp_path / "run")
    files = ("results.csv", "kinds.json", "scenario.yaml")
    before = [(record.folder / file).read_bytes() for file in files]
    monkeypatch.syspath_prepend((place / "site").resolve())
    assert NAME in {plugin.name for plugin in installed()}
    again, record = conduct_in_process(scenario, tmp_path / "run", resume=True)
    assert done and again and not any(name.startswith("polycentre_example") for name in sys.modules)
    assert [(record.folder / file).read_bytes() for file in files] == before
    finished = [event for event in record.events() if event["event"] == "unit_finished"]
    assert len(finished) == 10 and len({event["unit"] for event in finished}) == 5, "no unit has another id"


# -- at nodes -----------------------------------------------------------------------------------------------------------

AT_NODES = """
import contextlib, io, json, sys
from dataclasses import asdict
from pathlib import Path
from clients.app import app
from clients.centre_file import CentreFile
from federation.flower.in_process import FIRST_NODE, InProcessGrid
from federation.wire.units import Units
from polycentre.centre_plan import plan_page
from polycentre.command_line import main
from reports.run_record import RunRecord
from scenarios.plan import Plan
from scenarios.plugins import uses
from scenarios.reader import read, resolved_yaml
from server.app import begin, conduct

def over_nodes(out, *files):
    record = RunRecord.create(out, resolved_yaml(scenario), {})
    begin(record)
    configs = {FIRST_NODE + i: {"centre_file": file} for i, file in enumerate(files)}
    done = conduct(InProcessGrid(app, len(configs), {}, node_configs=configs), record, Path("unused"), node_wait_s=0.3)
    finished = sum(event["event"] == "unit_finished" for event in record.events())
    return [done, record.events()[-1]["text"], finished, sorted(name for name in sys.modules if name.startswith(PACKAGE))]

def units():
    made = Units("s", "code", {}, {}, plugins=[asdict(plugin) for plugin in uses(scenario)])
    return [ask.job(made, **ask.example).unit for ask in map(Plan(scenario).survey_ask, scenario.centres)]

def lines_to_copy(file):
    sys.argv = ["polycentre", "centre", "plugins", file]
    with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.suppress(SystemExit):
        main()
    return said.getvalue()

PACKAGE = "polycentre_example"
folder, metric = Path(sys.argv[1]), Path("site", PACKAGE, "metric.py")
scenario = read("study.yaml")
files = {name: [str(folder / name / centre / "centre.yaml") for centre in "AB"] for name in sys.argv[2:]}
text, before = metric.read_text(), units()
found = {name: over_nodes(folder / name / "run", *of) for name, of in files.items()}
found["pages"] = {name: plan_page(CentreFile.read(Path(of[1])), scenario, "approve") for name, of in files.items()}
found["lines"] = {name: lines_to_copy(of[1]) for name, of in files.items()}
metric.write_text(text + "# edited\\n")
edited = units()
found["edited since"] = over_nodes(folder / "edited", *files["to be edited"])
metric.write_text(text)
found["units"] = [before, edited, units()]
(folder / "found.json").write_text(json.dumps(found))
"""


@pytest.fixture(scope="module")
def at_nodes(place, run, centre_file, tmp_path_factory):
    """What the study did over two nodes, by what centre B's file lists; centre A's lists the example as it is."""
    folder = tmp_path_factory.mktemp("nodes")
    (right,) = json.loads((run / "environment.json").read_text())["plugins"]
    del right["uses"]
    lists = {
        "listed": [right],
        "not listed": [],
        "to be edited": [right],
        "another digest": [right | {"digest": "0" * 64}],
        "another version": [right | {"version": "1.1"}],
    }
    for name, listed in lists.items():
        for centre, own in (("A", [right]), ("B", listed)):
            settings = {"approve": {"studies": "any"}, "data": None, "release": {"predictions": True}, "plugins": own}
            if name == "listed":  # another file cannot name what it does not let run
                settings["release"]["strategies"] = ["local", "one_shot", "averages"]
            centre_file(folder / name / centre, centre, **settings)
    inside(place, "-c", AT_NODES, folder, *lists)
    return json.loads((folder / "found.json").read_text()) | {"right": right, "folder": folder}


def test_a_node_that_lists_it_runs_it(at_nodes, run):
    done, text, finished, _ = at_nodes["listed"]
    assert (done, text, finished) == (True, "", 9)
    results = at_nodes["folder"] / "listed" / "run" / "results.csv"
    assert results.read_bytes() == (run / "results.csv").read_bytes()


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("not listed", "does not allow plug-in 'polycentre-example' 1.0, which the study uses; its administrator can list it in "
         "centre.yaml (`polycentre centre plugins` prints the lines)"),
        *((case, "has plug-in 'polycentre-example' with other files than its centre.yaml lists; its administrator can install it "
           "again, or list the digest that `polycentre centre plugins` shows")
          for case in ("another digest", "another version", "edited since")),
    ],
)  # fmt: skip
def test_a_node_that_does_not_list_exactly_it_refuses_before_any_work(case, words, at_nodes):
    done, text, finished, _ = at_nodes[case]
    assert not done and finished == 0 and "\n" not in text
    assert f"{words} (centre 'B')" in text and text.endswith("; correct this, restart the SuperNode, then resume")


def test_an_edited_plugin_makes_other_units(at_nodes):
    before, edited, restored = at_nodes["units"]
    assert restored == before and not set(before) & set(edited)


def test_a_hospitals_page_names_it_with_its_verdict(at_nodes):
    row = f"| {NAME} | 1.0 | `{at_nodes['right']['digest']}` | {', '.join(USES)} |"
    page = at_nodes["pages"]["listed"]
    assert f"{row} allowed |" in page and "**Yes**" in page
    page = at_nodes["pages"]["not listed"]
    assert f"{row} **refused** |" in page and "- centre 'B' does not allow plug-in 'polycentre-example' 1.0" in page


def test_the_lines_to_copy_into_a_centre_file(at_nodes):
    said, right = at_nodes["lines"], at_nodes["right"]
    shown = f"plug-in '{NAME}' 1.0 (digest {right['digest'][:16]})"
    assert f"OK      {shown}: allowed" in said["listed"]
    assert f"NOTE    {shown}: installed and not listed, so its code does not run here" in said["not listed"]
    assert "PROBLEM centre 'B' has plug-in 'polycentre-example' with other files" in said["another digest"]
    for text in said.values():
        assert yaml.safe_load(text[text.index("plugins:") :]) == {"plugins": [right]}


LOOPBACK = """
import json, sys
from polycentre import deploy
from polycentre.command_line import main
out, listed = sys.argv[1], json.loads(sys.argv[2])
prepare = deploy.prepare

def with_list(folder, centres, *arguments, **options):
    for name, settings in centres.items():
        if listed is not None and name == "B":
            settings["plugins"] = listed
    prepare(folder, centres, *arguments, **options)

deploy.prepare = with_list
sys.argv = ["polycentre", "run", "study.yaml", "--deployment", "loopback", "--out", out]
main()
"""


@pytest.mark.slow
@pytest.mark.runtime
def test_over_real_nodes_that_list_it(place, run):
    inside(place, "-c", LOOPBACK, "over-nodes", "null", timeout=570)
    assert (place / "over-nodes" / "results.csv").read_bytes() == (run / "results.csv").read_bytes()


@pytest.mark.slow
@pytest.mark.runtime
@pytest.mark.parametrize("number", ["0", "1"], ids=["not listed", "edited since it was listed"])
def test_over_real_nodes_of_which_one_does_not(number, place, identity, another):
    listed = [] if number == "0" else [asdict(identity())]
    if listed:
        another("polycentre_example/model.py", "0.3", "0.4")
    out, _ = inside(place, "-c", LOOPBACK, f"refused-{number}", json.dumps(listed), status=1, timeout=570)
    words = "does not allow plug-in" if number == "0" else "with other files than its centre.yaml lists"
    assert words in out and "(centre 'B')" in out
