"""Secure sums on real nodes: four centres with a centre.yaml each, in this process; one is lost in each phase of a round.

What the server ever held is searched for what single centres gave, and the search is shown to find it where masks are left out.
"""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from flwr.app import Error, Message

from clients.app import answer
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
    "arms.average.fidelity.fewest_patients=2",
)  # fmt: skip
CLASSIFIER = (
    *FOUR,
    "arms.average={strategy: fedavg_classifier, rounds: 2, local_steps: 2, optimizer: keep}",
    "study.classifiers=[cnn_small]",
)
STEPS = ("sum_keys", "sum_shares", "train_summed_round", "sum_survivors", "sum_opening")


def slow(*values):
    """Parameters that stand for others of their kind: only in `make test-all`."""
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]


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
            tree = yaml.safe_load(path.read_text())
            tree |= {"members": members, "release": tree["release"] | {"plain_updates": False} | release}
            path.write_text(yaml.safe_dump(tree))
            Approvals(CentreFile.read(path).workspace).add(resolved_yaml(scenario))
        return [{"centre_file": str(path)} for path in made.values()]

    return make


@pytest.fixture(scope="module")
def reference(scenario, conduct_in_process, tmp_path_factory):
    """Results of a simulation."""
    done, record = conduct_in_process(scenario, tmp_path_factory.mktemp("reference") / "run")
    assert done
    found = results(record)
    assert {"convergence", "results", "generator.safetensors"} <= set(found)
    return found


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Function: run, or resume, a scenario over nodes; returns (succeeded, record)."""

    monkeypatch.setattr("federation.wire.grid_centres._BACK_OFF_S", 0.01)

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
    """The `fault` hook of the engine: jobs of some kinds do not reach certain centres.

    Args:
        features: whether jobs about sums of features are lost, or those of rounds.
    """

    def __init__(self, lost=(), features=False):
        self.lost, self.features, self.kinds = set(lost), features, Counter()

    def __call__(self, message):
        job = Job.from_record(message.content)
        self.kinds[job.kind] += 1
        of_features = job.body.get("sum_of", "").startswith("features/")
        if (job.kind, job.centre) in self.lost and of_features == self.features:
            return Message(Error(code=8, reason="killed"), reply_to=message)
        return None


def news(record):
    return [e.get("text", e.get("code")) for e in record.events() if e["event"] in ("unit_failed", "run_finished")]


def results(record):
    """Bytes of the results, of the generators, and of the convergence without its clock."""
    found = {file.name: file.read_bytes() for file in (record.folder / "generators").rglob("*.safetensors")}
    table = record.folder / "convergence.csv"
    if table.exists():
        found["convergence"] = pd.read_csv(table).drop(columns="virtual_s", errors="ignore").to_csv()
    return found | {"results": (record.folder / "results.csv").read_bytes()}


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
    assert results(record) == results(reference)
    expected = Counter()
    for row in expected_messages(Plan(scenario, deployed=True)):
        expected[row.kind] += row.messages
    assert {kind: n for kind, n in hook.kinds.items() if "sum" in kind} == {
        k: n for k, n in expected.items() if "sum" in k
    }
    infix = "classifier_" if overrides is CLASSIFIER else ""
    rounds = scenario.arms["average"].rounds
    features = 0 if infix else 1  # of the training patches, summed once
    assert [hook.kinds[f"sum_{infix}{step}"] for step in ("keys", "shares", "survivors", "opening")] == [
        4 * (1 + features), 4 * (1 + features), 4 * (rounds + features), 4 * (rounds + features),
    ]  # fmt: skip


# -- a node is lost ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", STEPS)
def test_a_node_that_is_lost_in_one_phase_does_not_end_the_round(step, scenario, nodes, run):
    hook = Losing({(step, "D")})
    done, record = run(scenario, nodes(scenario), fault=hook)
    assert done, news(record)
    times = pd.read_csv(record.folder / "virtual_time.csv")
    used = times[times["outcome"] == "used"].groupby("number")["centre"].agg("".join)
    # Lost after it gave its input it is in the sum; before, it is not.
    with_d = step in ("sum_survivors", "sum_opening")
    assert [("D" in used[number]) for number in range(3)] == [with_d] * 3 and len(used) == 3


@pytest.mark.parametrize("step", STEPS)
def test_with_two_of_four_lost_the_run_stops_and_is_resumed_to_the_same_results(step, scenario, nodes, run, reference):
    configs = nodes(scenario)
    done, record = run(scenario, configs, fault=Losing({(step, "C"), (step, "D")}))
    assert not done and "resume" in record.events()[-1]["text"], news(record)
    hook = Losing()
    done, record = run(scenario, configs, resume=True, fault=hook)
    assert done, news(record)
    assert results(record) == reference
    if step in ("sum_survivors", "sum_opening"):
        assert hook.kinds["train_summed_round"] == 4 * 2, "what the first session computed is taken from its record"


@pytest.mark.parametrize(
    "step", ["sum_shares", "sum_survivors", *slow("sum_keys", "feature_secure_sums", "sum_opening")]
)
def test_sums_of_features_need_all_centres_and_are_resumed(step, scenario, nodes, run, reference):
    """The reference of a study is that of all its centres. Who is lost after it gave its input is in the sum."""
    configs = nodes(scenario)
    done, record = run(scenario, configs, fault=Losing({(step, "D")}, features=True))
    if step in ("sum_survivors", "sum_opening"):
        assert done, news(record)
    else:
        assert not done and any("resume" in str(text) or "features" in str(text) for text in news(record)), news(record)
        done, record = run(scenario, configs, resume=True)
        assert done, news(record)
    assert results(record) == reference


@pytest.mark.parametrize("at", [2, 6, 9, *slow(5, 8, 11)])
def test_a_server_that_is_killed_anywhere_in_a_round_goes_on_to_the_same_results(at, scenario, nodes, run, reference):
    """Messages of the second round: training, signing and opening at four centres; killed before one of them is answered."""
    configs, seen = nodes(scenario), Counter()

    def kill(message):
        job = Job.from_record(message.content)
        if job.body.get("round") == 1:
            seen["round"] += 1
            if seen["round"] == at:
                raise KeyboardInterrupt
        return None

    with pytest.raises(KeyboardInterrupt):
        run(scenario, configs, fault=kill)
    done, record = run(scenario, configs, resume=True)
    assert done, news(record)
    assert results(record) == reference


def test_an_answer_that_is_lost_on_its_way_is_given_again(scenario, nodes, run, reference):
    seen = Counter()

    def lose_answers(message):
        job = Job.from_record(message.content)
        seen[job.unit] += 1
        if job.kind in STEPS and seen[job.unit] == 1:
            node = int(message.metadata.dst_node_id) - FIRST_NODE
            answer(job, configs[node])
            return Message(Error(code=3, reason="lost"), reply_to=message)
        return None

    configs = nodes(scenario)
    done, record = run(scenario, configs, fault=lose_answers)
    assert done, news(record)
    assert results(record) == reference


def test_a_run_anew_of_the_same_study_gives_the_same_and_with_other_survivors_it_is_refused(scenario, nodes, run):
    """Two sums of one round that differ by one member would show what that member gave. Here the nodes remember nothing else."""
    configs = nodes(scenario)
    for config in configs:
        path = Path(config["centre_file"])
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"approve": {"studies": "any"}}))
    done, record = run(scenario, configs)
    assert done, news(record)
    done, again = run(scenario, configs, name="again")
    assert done and results(again) == results(record)
    done, less = run(scenario, configs, name="less", fault=Losing({("train_summed_round", "D")}))
    assert not done
    reasons = {e["text"] for e in less.events() if e["event"] == "unit_failed" and e["code"] == "sum_refused"}
    assert reasons and all("another list of survivors for this round" in text for text in reasons)


# -- what a node refuses -------------------------------------------------------------------------------------


def test_plain_updates_do_not_leave_unless_the_centre_allows_them(federated, nodes, run):
    scenario = federated(*FOUR, "arms.average.secure_aggregation=false")
    done, record = run(scenario, nodes(scenario))
    assert not done and any("release.plain_updates is false" in text for text in news(record))
    done, record = run(scenario, nodes(scenario, plain_updates=True), name="allowed")
    assert done, news(record)


def test_a_server_that_asks_for_the_ring_without_masks_is_refused(scenario, nodes, run, monkeypatch):
    configs = nodes(scenario)
    monkeypatch.setattr(Plan, "deployed", False, raising=False)
    monkeypatch.setattr(
        Plan,
        "__setattr__",
        lambda self, key, value: None if key == "deployed" else object.__setattr__(self, key, value),
    )
    # As where any study is approved.
    monkeypatch.setattr("clients.approved_study.question_of", lambda *arguments: None)
    done, record = run(scenario, configs)
    assert not done and any("release.plain_updates is false" in text for text in news(record))


def test_a_centre_whose_key_is_not_listed_is_named(scenario, nodes, run, tmp_path):
    configs = nodes(scenario)
    for centre in "ABC":
        path = tmp_path / centre / "centre.yaml"
        tree = yaml.safe_load(path.read_text())
        del tree["members"]["D"]
        path.write_text(yaml.safe_dump(tree))
    done, record = run(scenario, configs)
    assert not done and any("is not signed by 'D'" in text for text in news(record))


def test_a_server_that_swaps_a_members_keys_opens_nothing(scenario, nodes, run, monkeypatch):
    """It puts keys of its own in the place of D's, as whoever runs the server could."""
    from federation.secure_sum.masks import new_key
    from strategies.sum_rounds import SumRounds

    ask = SumRounds._ask

    def swapped(self, summary, which, names, needed, **found):
        if "keys" in found:
            own = {"encryption": new_key()[1].hex(), "masking": new_key()[1].hex()}
            found["keys"] = found["keys"] | {"D": found["keys"]["D"] | own}
        return (yield from ask(self, summary, which, names, needed, **found))

    monkeypatch.setattr(SumRounds, "_ask", swapped)
    done, record = run(scenario, nodes(scenario))
    assert not done and any("is not signed by 'D'" in text for text in news(record))


@pytest.mark.parametrize("overrides", [FOUR, CLASSIFIER])
def test_a_summed_round_does_not_begin_with_weights_of_the_servers_choice(
    overrides, federated, nodes, run, monkeypatch
):
    from clients import received_weights
    from strategies.rounds import Rounds

    scenario, encoded = federated(*overrides), Rounds._encoded
    configs = nodes(scenario)
    monkeypatch.setattr(
        Rounds, "_encoded", lambda self: {name: a + np.float32(0.01) for name, a in encoded(self).items()}
    )
    done, record = run(scenario, configs)
    assert not done
    codes = {e["code"] for e in record.events() if e["event"] == "unit_failed"}
    assert "foreign_weights" in codes, news(record)
    monkeypatch.setattr(received_weights, "check", lambda *_: None)
    done, record = run(scenario, nodes(scenario), name="without")
    assert done, "the defence is what refuses"


# -- what the server holds -----------------------------------------------------------------------------------


@pytest.fixture
def given(monkeypatch):
    """What each centre gave, before it was masked, as bytes: (weights, elements of the ring), without arrays that are small or alike."""
    weights_found, ring_found = [], []

    def telling(arrays):
        return [array.tobytes() for array in arrays if array.size >= 16 and np.unique(array).size >= 8]

    def ring(weights, examples, members):
        made = to_ring(weights, examples, members)
        weights_found.extend(telling(weights.values()))
        ring_found.extend(telling(made.values()))
        return made

    def ring_of_features(sums, examples, members, bits):
        made = to_ring(sums, examples, members, bits)
        weights_found.extend(telling(sums.values()))
        ring_found.extend(telling(made.values()))
        return made

    monkeypatch.setattr("strategies.sums.to_ring", ring)
    monkeypatch.setattr("strategies.fidelity.to_ring", ring_of_features)
    return weights_found, ring_found


@pytest.mark.parametrize("masks", [True, False])
def test_the_server_holds_no_single_update_and_each_where_masks_are_left_out(
    masks, scenario, nodes, run, given, monkeypatch
):
    if not masks:
        monkeypatch.setattr("federation.secure_sum.member.add_mask", lambda ring, seed, sign: None)
        monkeypatch.setattr("federation.secure_sum.coordinator.add_mask", lambda ring, seed, sign: None)
    held = []

    def listen(message):
        if message.has_content():
            held.extend(array.data for array in message.content.array_records["arrays"].values())
            held.append(str(message.content.config_records["envelope"]["json"]).encode())

    done, record = run(scenario, nodes(scenario), on_message=listen)
    assert done, news(record)
    held += [file.read_bytes() for file in record.folder.rglob("*") if file.is_file()]
    weights, ring = given
    assert min(len(ring), len(weights)) >= 4 * 3 * 8
    found = [sum(any(one in blob for blob in held) for one in given) for given in (weights, ring)]
    assert found == ([0, 0] if masks else [0, len(ring)])


def test_no_loss_and_no_count_of_a_centre_leaves_beside_the_sum(scenario, nodes, run):
    bodies = []

    def listen(message):
        if message.has_content() and message.metadata.reply_to_message_id:
            envelope = json.loads(str(message.content.config_records["envelope"]["json"]))
            if envelope["kind"] == "train_summed_round":
                bodies.append(envelope["body"])

    done, _ = run(scenario, nodes(scenario), on_message=listen)
    assert done and {key for body in bodies for key in body} == {"data_card", "trained_on"}, (
        "in the first answer, suppressed"
    )
