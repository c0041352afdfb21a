"""Which plug-ins a scenario uses, names that clash, and what `polycentre doctor` says of those that are installed."""

import io
from dataclasses import asdict
from types import SimpleNamespace

import pytest
from rich.console import Console

from basics.plugins import Identity
from federation.wire.errors import StudyError
from metrics import METRICS
from polycentre.doctor import diagnose
from scenarios.plugins import changed, faults, missing, named, uses
from scenarios.reader import ScenarioError
from server.app import refuse_changed_plugins
from server.environment import describe

METRIC = "from metrics import Metric\nMETRIC = Metric('seven', 'Seven', lambda labels, probability: 7.0)\n"
BEFORE = {"name": "my-things", "version": "1.0", "digest": "a" * 64}


def test_a_scenario_without_plugins_names_tables_of_the_project_and_uses_none(tiny):
    scenario = tiny()
    found = {(group, name) for _, group, name in named(scenario)}
    assert found == {
        ("sources", "phantom"), ("models", "dcgan"), ("models", "flow_matching"), ("classifiers", "cnn_small"),
        *(("strategies", name) for name in ("local", "one_shot", "pooled")),
    }  # fmt: skip
    assert uses(scenario) == {}


def test_a_name_that_the_project_has_too_is_refused_where_a_scenario_means_it(tiny, install):
    install("my-things", {"models": {"dcgan": "my_things.things:Thing", "wgan_gp": "my_things.things:Thing"}})
    with pytest.raises(ScenarioError) as problem:
        tiny()
    assert str(problem.value) == (
        "tiny.yaml: generators.b_gan.model: model 'dcgan' is offered by 'polycentre' and by 'my-things'; uninstall one, or rename "
        "its entry point"
    )
    # What it does not name is no affair of its.
    assert uses(tiny("generators={}", "arms={real: {strategy: local}}")) == {}


def test_a_plugin_that_cannot_be_imported_is_one_line_of_the_scenarios_that_name_it(tiny, install):
    install("my-things", {"models": {"thing": "my_things.things:Thing"}}, text="import nowhere_at_all")
    assert tiny().name == "tiny"
    with pytest.raises(ScenarioError) as problem:
        tiny("generators.b_gan={centre: B, model: thing}")
    (line,) = str(problem.value).splitlines()
    assert line == (
        "tiny.yaml: generators.b_gan.model: 'thing': plug-in 'my-things' 1.0: entry point polycentre.models thing = "
        "my_things.things:Thing cannot be imported (ModuleNotFoundError: No module named 'nowhere_at_all'); correct or uninstall it"
    )


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        ("[auroc]", "study.metrics: 'auroc' is measured in every study; remove it"),
        ("[brier]", "study.metrics: no metric 'brier'; known metrics: accuracy"),
    ],
)
def test_metrics_that_a_study_cannot_name(metrics, words, tiny):
    with pytest.raises(ScenarioError) as problem:
        tiny(f"study.metrics={metrics}")
    (line,) = str(problem.value).splitlines()
    assert words in line


def test_how_a_run_differs_from_what_is_here(tiny, install):
    scenario, uses_seven = tiny(), {"uses": ["metric seven"]}
    assert changed([BEFORE | uses_seven], scenario) == [], "the study no longer uses it"
    here = install("my-things", {"metrics": {"seven": "my_things.things:METRIC"}}, text=METRIC).identity
    scenario = tiny("study.metrics=[seven]")
    recorded = f"the run was recorded with plug-in 'my-things' 1.0 (digest {'a' * 16})"
    same = asdict(here) | uses_seven
    assert changed([same | {"name": "My_Things"}], scenario) == []
    assert changed([], scenario) == [], "it uses it from now on"
    assert changed([BEFORE | uses_seven], scenario) == [
        f"{recorded}, and here is {here}; install what was recorded, or start a new run"
    ]
    (line,) = changed([same | {"version": "0.9"}], scenario)
    assert "plug-in 'my-things' 0.9 (digest " in line and f"and here is {here};" in line
    assert missing([BEFORE | {"name": "gone"}]) == [
        f"{recorded.replace('my-things', 'gone')}, which is not installed here; install that version, or start a new run"
    ]


def test_a_name_of_a_run_that_is_of_another_distribution_now(tiny, install, monkeypatch):
    """Nothing is missing then: whoever offers the name now would go on with a run of somebody else's code."""
    other = install("your-things", {"metrics": {"seven": "your_things.things:METRIC"}}, text=METRIC).identity
    scenario = tiny("study.metrics=[seven]")
    recorded = BEFORE | {"uses": ["metric seven", "metric eight"]}
    start = f"the run was recorded with metric seven of plug-in 'my-things' 1.0 (digest {'a' * 16}), and here it is of "
    end = "; install what was recorded, or start a new run"
    assert changed([recorded], scenario) == [f"{start}plug-in {other}{end}"]
    record = SimpleNamespace(environment=describe({Identity(**BEFORE): ["metric seven"]}))
    with pytest.raises(StudyError, match="and here it is of plug-in 'your-things' 1.0"):
        refuse_changed_plugins(record, scenario)
    monkeypatch.setitem(METRICS.builtin, "seven", METRICS["seven"])
    assert changed([recorded], scenario) == [f"{start}polycentre itself{end}"]


def test_what_the_doctor_says(install, tmp_path, monkeypatch):
    broken = install("my-things", {"models": {"dcgan": "my_things.things:Thing", "thing": "my_things.things:Thing"}})
    clash = "model 'dcgan' is offered by 'polycentre' and by 'my-things'; uninstall one, or rename its entry point"
    wrong = (
        "plug-in 'my-things' 1.0: entry point polycentre.models thing = my_things.things:Thing must be a subclass of "
        "models.generative.GenerativeSettings, and is <class 'my_things.things.Thing'>"
    )
    assert [line for line in faults() if "my-things" in line] == [clash, wrong]
    monkeypatch.setenv("POLYCENTRE_CACHE", str(tmp_path))
    said = io.StringIO()
    assert diagnose(Console(file=said, width=300)) == 1
    assert f"plug-in {broken.identity}: model dcgan, model thing\n" in said.getvalue()
    assert f"PROBLEM {clash}\n" in said.getvalue() and f"PROBLEM {wrong}\n" in said.getvalue()
