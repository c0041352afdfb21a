"""Secure sums on real nodes: four centres with a centre.yaml each, in this process; one is lost in each phase of a round.

What the server ever held is searched for what single centres gave, and the search is shown to find it where masks are left out.
"""

from collections import Counter

import numpy as np
import pytest
import yaml
from flwr.app import Error, Message

import federation.secure_sum.member
from clients.app import app as client_app
from clients.approval import Approvals
from clients.centre_file import CentreFile
from clients.member_keys import checked_public_key
from federation.flower.certificates import create_node_key
from federation.flower.in_process import FIRST_NODE, InProcessGrid
from federation.secure_sum.fixed_point import to_ring
from federation.wire.job import Job
from reports.run_record import RunRecord
from scenarios.messages import expected_messages
from scenarios.plan import Plan
from scenarios.reader import resolved_yaml
from server.app import begin, conduct

FOUR = (
    "centres.A.roles=[receiver, provider]",
    "centres.D={roles: [provider], data: {source: phantom, patients: 24, scanner: film}}",
    "arms.ring=null", "arms.remote=null", "arms.average.rounds=3", "arms.average.local_steps=1", "arms.average.fidelity.every=3",
)  # fmt: skip
CLASSIFIER = (*FOUR, "arms.average={strategy: fedavg_classifier, rounds: 2, local_steps: 2, optimizer: keep}", "study.classifiers=[cnn_small]")
STEPS = ("sum_keys", "sum_shares", "train_summed_round", "sum_survivors", "sum_opening")
BYTES = ("results.csv", "convergence.csv")


@pytest.fixture(scope="module")
def scenario(federated):
    return federated(*FOUR)


@pytest.fixture
def nodes(centre_file, tmp_path, patch_cache):
    """Function: nodes of centres with keys, which list each other and have approved a scenario; their configurations."""

    def make(scenario, **release):
        made = {}
        for centre in scenario.centres:
            path = centre_file(tmp_path / centre, centre, cache=str(patch_cache))
            (tmp_path / centre / "node.key").unlink()
            create_node_key(tmp_path / centre / "node.key")
            made[centre] = path
        members = {name: checked_public_key((path.parent / "node.key.pub").read_text()) for name, path in made.items()}
        for path in made.values():
            tree = yaml.safe_load(path.read_text()) | {"members": members, "release": release}
            path.write_text(yaml.safe_dump(tree))
            Approvals(CentreFile.read(path).workspace).add(resolved_yaml(scenario))
        return [{"centre_file": str(path)} for path in made.values()]

    return make


@pytest.fixture
def run(tmp_path):
    """Function: run, or resume, a scenario over nodes; returns (succeeded, record)."""

    def conduct_over(scenario, configs, name="run", resume=False, **options):
        folder = tmp_path / name
        record = RunRecord.open(folder) if resume else RunRecord.create(folder, resolved_yaml(scenario), {})
        begin(record)
        grid = InProcessGrid(
            client_app, len(configs), {}, node_configs={FIRST_NODE + i: c for i, c in enumerate(configs)}, **options
        )
        return conduct(grid, record, tmp_path / "not-used", node_wait_s=0.3), record

    return conduct_over


class Losing:
    """The `fault` hook of the engine: jobs of some kinds do not reach certain centres, or their answers do not reach the server."""

    def __init__(self, lost=(), answered=()):
        self.lost, self.answered, self.kinds = set(lost), set(answered), Counter()

    def __call__(self, message):
        job = Job.from_record(message.content)
        self.kinds[job.kind] += 1
        if (job.kind, job.centre) in self.answered:
            return None
        if (job.kind, job.centre) in self.lost:
            return Message(Error(code=8, reason="killed"), reply_to=message)
        return None


def news(record):
    return [e.get("text", e.get("code")) for e in record.events() if e["event"] in ("unit_failed", "run_finished")]


def same_results(one, other):
    return all((one.folder / name).read_bytes() == (other.folder / name).read_bytes() for name in BYTES)


@pytest.mark.parametrize("overrides", [FOUR, CLASSIFIER])
def test_deployed_and_simulated_results_are_equal_and_rounds_take_two_more_exchanges(
    overrides, federated, nodes, run, conduct_in_process, tmp_path
):
    scenario = federated(*overrides)
    done, reference = conduct_in_process(scenario, tmp_path / "reference")
    assert done
    hook = Losing()
    done, record = run(scenario, nodes(scenario), fault=hook)
    assert done, news(record)
    assert same_results(record, reference)
    expected = Counter()
    for row in expected_messages(Plan(scenario, deployed=True)):
        expected[row.kind] += row.messages
    assert {kind: n for kind, n in hook.kinds.items() if "sum" in kind} == {k: n for k, n in expected.items() if "sum" in k}
    infix = "classifier_" if overrides is CLASSIFIER else ""
    rounds = scenario.arms["average"].rounds
    assert [hook.kinds[f"sum_{infix}{step}"] for step in ("keys", "shares", "survivors", "opening")] == [4, 4, 4 * rounds, 4 * rounds]
