"""The server's view of centres that keep to a policy of their own: what they refuse is told as a refusal, by name.

Over the in-process grid, with nodes that read a centre.yaml each.
"""

import pytest

from clients.app import app as client_app
from clients.approval import Approvals
from clients.centre_file import CentreFile
from clients.ledger import Ledger
from clients.policy import PAUSED
from federation.flower.in_process import FIRST_NODE, InProcessGrid
from reports.html import build_report
from reports.run_record import RunRecord
from scenarios.reader import resolved_yaml
from server.app import begin, conduct

SMALL = ["repeats=1", "arms={real: {strategy: local}, b_gan: {strategy: one_shot, generators: [b_gan]}}", "study.test_on=[C]",
         "generators.c_flow=null"]  # fmt: skip


@pytest.fixture
def nodes(centre_file, tmp_path, patch_cache):
    """Function: nodes of centres that have approved a scenario; `settings` by centre. Returns their configurations."""

    def make(scenario, approve=True, **settings):
        configs = []
        for centre in scenario.centres:
            path = centre_file(tmp_path / centre, centre, cache=str(patch_cache), **settings.get(centre, {}))
            if approve:
                Approvals(CentreFile.read(path).workspace).add(resolved_yaml(scenario))
            configs.append({"centre_file": str(path)})
        return configs

    return make


@pytest.fixture
def conduct_over(tmp_path):
    """Function: run a scenario over nodes; returns (succeeded, record)."""

    def run(scenario, configs, name="run", **options):
        record = RunRecord.create(tmp_path / name, resolved_yaml(scenario), {})
        begin(record)
        by_node = {FIRST_NODE + i: config for i, config in enumerate(configs)}
        grid = InProcessGrid(client_app, len(configs), {}, node_configs=by_node, **options)
        return conduct(grid, record, tmp_path / "not-used", node_wait_s=0.3), record

    return run


def texts(record, event):
    return [e["text"] for e in record.events() if e["event"] == event]


def test_an_approved_study_runs_and_gives_the_bytes_of_a_simulation(
    tiny, nodes, conduct_over, conduct_in_process, tmp_path
):
    scenario = tiny(*SMALL)
    done, reference = conduct_in_process(scenario, tmp_path / "reference")
    assert done
    done, record = conduct_over(scenario, nodes(scenario))
    assert done, texts(record, "run_finished")
    assert (record.folder / "results.csv").read_bytes() == (reference.folder / "results.csv").read_bytes()
    for centre in "ABC":
        verified = Ledger(tmp_path / centre / "workspace").verify()
        assert verified.problems == [] and {entry["code"] for entry in verified.entries} == {"ok"}
        assert {entry["kind"] for entry in verified.entries} >= {"identify", "survey_data"}


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        [
            "arms.average.alone=true",
            "arms.average.transport=int8",
            "arms.weights={strategy: dm_gan, model: wgan_gp, width: 4, critic_steps: 2, batch_size: 4, updates: 3, batches_per_job: 2,"
            " lock_step: true, exchange: generator, transport: fp16, fidelity: {images: 16, every: 3, fewest_patients: 2}}",
            "arms.swapped={strategy: md_gan, model: dcgan, conditional: true, width: 4, batch_size: 4, updates: 5, batches_per_job: 1,"
            " swap_every: 2, transport: int8, fidelity: {images: 16, every: 5, fewest_patients: 2}}",
            "arms.together={strategy: fedavg_classifier, rounds: 2, local_steps: 2, fine_tune: 2, transport: fp16,"
            " secure_aggregation: false}",
            "study.test_on=[B]",
        ],
    ],
)
def test_every_job_of_approved_federations_is_recognised(overrides, federated, nodes, conduct_over):
    scenario = federated(*overrides)
    done, record = conduct_over(scenario, nodes(scenario))
    assert done, texts(record, "unit_failed")


def test_predictions_stay_at_the_centres_and_the_report_says_so(tiny, nodes, conduct_over, tmp_path):
    scenario = tiny(*SMALL)
    done, record = conduct_over(scenario, nodes(scenario, C={"release": {"predictions": True}}))
    assert done, texts(record, "run_finished")
    assert set(record.predictions()["tested_on"]) == {"C"}, "C lets its own go"
    (note,) = [text for text in texts(record, "note") if "predictions" in text]
    assert note.startswith("the predictions of single images stayed at A; predictions.csv lacks them")
    kept = list((tmp_path / "A" / "workspace" / "predictions").glob("*.csv"))
    assert len(kept) == 2 and not (tmp_path / "C" / "workspace" / "predictions").exists()
    page = build_report(record).read_text()
    assert "Tested at A: positive class" in page and "the record lacks their predictions" in page


def test_a_study_that_one_centre_has_not_approved_ends_in_one_line_before_anything_is_trained(
    tiny, nodes, conduct_over
):
    scenario = tiny(*SMALL)
    nodes(scenario)  # all have approved this one
    other = tiny(*SMALL, "seed=2")
    done, record = conduct_over(other, nodes(other, approve=False))
    end = record.events()[-1]
    assert not done and end["exit_status"] == 1 and "\n" not in end["text"]
    for centre in "ABC":
        assert f"centre '{centre}' has not approved this study (scenario " in end["text"]
    assert "polycentre centre approve" in end["text"]
    assert {e["kind"] for e in record.events() if e["event"] == "unit_failed"} == {"survey_data"}


@pytest.mark.parametrize(
    ("settings", "code", "words"),
    [
        ({"release": {"strategies": ["local"]}}, "strategy_refused", "does not take part in strategy 'one_shot', by its own policy"),
        ({"release": {"epsilon_at_most": 2}}, "policy", "release.epsilon_at_most is 2, and this version trains without"),
        ({"release": {"attacks_must_fail": ["membership"]}}, "policy", "release.attacks_must_fail names membership"),
        ({"release": {"largest_message_mib": 0.05}}, "message_too_large", "MiB, and the centre allows at most 0.05 MiB"),
    ],
)  # fmt: skip
def test_what_a_provider_does_not_release_is_told_as_its_refusal(
    settings, code, words, tiny, nodes, conduct_over, tmp_path
):
    scenario = tiny(*SMALL)
    done, record = conduct_over(scenario, nodes(scenario, B=settings))
    assert not done
    (failed,) = [e for e in record.events() if e["event"] == "unit_failed"]
    assert (failed["centre"], failed["kind"], failed["code"]) == ("B", "train_generator", code)
    assert failed["text"].startswith("centre 'B' ") and words in failed["text"]
    assert set(record.results()["arm"]) == {"real"}, "what does not need it is finished"
    assert Ledger(tmp_path / "B" / "workspace").verify().entries[-1]["code"] == code


@pytest.mark.parametrize(
    ("settings", "paused", "words"),
    [
        ({}, True, "centre 'C' was paused by its administrator; resume the run when the centre works again"),
        ({"working_hours": {"from": "00:00", "until": "00:01", "zone": "UTC", "days": ["mon"]}}, False,
         "centre 'C' works only in its own hours (mon, 00:00 to 00:01 UTC); resume the run then"),
    ],
)  # fmt: skip
def test_a_centre_that_does_not_work_now(settings, paused, words, tiny, nodes, conduct_over, tmp_path):
    scenario = tiny(*SMALL)
    configs = nodes(scenario, C=settings)
    if paused:
        (tmp_path / "C" / "workspace" / PAUSED).touch()
    done, record = conduct_over(scenario, configs)
    assert not done and words in record.events()[-1]["text"]


def test_a_centres_own_data_replaces_that_of_the_scenario(tiny, nodes, conduct_over):
    scenario = tiny(*SMALL)
    own = {"source": "phantom", "patients": 32, "scanner": "film"}
    done, record = conduct_over(scenario, nodes(scenario, B={"data": own}))
    assert done
    survey = next(unit for unit in record.units() if unit["kind"] == "survey_data" and unit["centre"] == "B")
    assert survey["result"]["tasks"]["lesion"]["card"]["patients"] > 24, "more than the scenario gives it"


def test_a_node_that_runs_other_code_does_not_take_part_and_is_named(tiny, nodes, conduct_over, monkeypatch):
    monkeypatch.setattr("clients.introduction.code_digest", lambda: "0ther")
    scenario = tiny(*SMALL)
    done, record = conduct_over(scenario, nodes(scenario))
    end = record.events()[-1]["text"]
    assert not done and end.endswith("correct this, restart the SuperNode, then resume")
    assert "(centre 'B') runs other code (digest 0ther) than the server (digest " in end
