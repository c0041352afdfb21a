"""The server's view of centres that keep to a policy of their own: what they refuse is told as a refusal, by name.

Over the in-process grid, with nodes that read a centre.yaml each.
"""

import pytest

from clients.app import app as client_app
from clients.approval import Approvals
from clients.centre_file import CentreFile
from clients.ledger import Ledger
from federation.in_process import FIRST_NODE, InProcessGrid
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
        assert {entry["kind"] for entry in verified.entries} >= {"identify", "survey"}


@pytest.mark.parametrize("overrides", [[], ["arms.average.alone=true"], ["arms.average.transport=int8"]])
def test_every_duty_of_approved_federations_is_recognised(overrides, federated, nodes, conduct_over):
    scenario = federated(*overrides)
    done, record = conduct_over(scenario, nodes(scenario))
    assert done, texts(record, "unit_failed")
