"""A federated classifier within a study: with faults, interrupted again and again, it comes to the same bytes."""

from collections import Counter

import pandas as pd
import pytest

from federation.wire.job import Job

BYTES = ("results.csv", "virtual_time.csv", "predictions.csv", "federations.json")
ARMS = """arms={
  real: {strategy: local},
  together: {strategy: fedavg_classifier, rounds: 4, local_steps: 2, optimizer: keep, proximal_mu: 0.1, transport: fp16,
             secure_aggregation: false},
  tuned: {strategy: fedavg_classifier, rounds: 2, local_steps: 2, aggregation: FedAdam, fine_tune: 2, secure_aggregation: false},
}"""


class Interrupting:
    """The `fault` hook: interrupts the server at a message and counts what centres compute until then."""

    def __init__(self, stop_at=None):
        self.stop_at, self.seen, self.computed, self.kinds = stop_at, 0, Counter(), Counter()

    def __call__(self, message):
        self.seen += 1
        if self.seen == self.stop_at:
            raise KeyboardInterrupt
        job = Job.from_record(message.content)
        if job.kind != "survey_data":
            self.computed[job.unit] += 1
            self.kinds[job.kind] += 1


def test_of_three_centres_none_can_be_missed_in_a_secure_sum(federated, conduct_in_process, tmp_path):
    """Two of them are enough for plain weights, as below; the simulation is as strict as real nodes are."""
    scenario = federated(ARMS.replace("secure_aggregation: false", "secure_aggregation: true"), faults=True)
    done, record = conduct_in_process(scenario, tmp_path / "run")
    assert not done and "had 2 good answers and the quorum is 3" in record.events()[-1]["text"]


def bytes_of(record):
    return {name: (record.folder / name).read_bytes() for name in BYTES}


@pytest.fixture(scope="module")
def scenario(federated):
    return federated(ARMS, faults=True)


@pytest.fixture(scope="module")
def whole(scenario, conduct_in_process, tmp_path_factory):
    hook = Interrupting()
    done, record = conduct_in_process(scenario, tmp_path_factory.mktemp("whole") / "run", fault=hook)
    assert done, record.events()[-1]
    return record, hook


def test_a_study_with_federated_classifiers_has_their_results_and_their_time(whole):
    record, hook = whole
    assert set(record.results()["arm"]) == {"real", "together", "tuned"}
    rows = pd.read_csv(record.folder / "virtual_time.csv")
    assert set(rows["arm"]) == {"together", "tuned"} and {"used", "lost"} <= set(rows["outcome"])
    assert hook.kinds["validate_classifier"] == 4 + 2 and hook.kinds["adopt_classifier"] == 2
    assert hook.kinds["train_classifier_round"] == (rows["outcome"] == "used").sum()


@pytest.mark.parametrize("every", [8, 11])
def test_interrupted_again_and_again_it_goes_on_to_the_same_bytes(every, whole, scenario, conduct_in_process, tmp_path):
    record, hook = whole
    computed, kinds, sessions, done = Counter(), Counter(), 0, False
    while not done:
        interrupting = Interrupting(stop_at=every)
        try:
            done, again = conduct_in_process(scenario, tmp_path / "run", resume=sessions > 0, fault=interrupting)
            assert done, again.events()[-1]
        except KeyboardInterrupt:
            sessions += 1
        computed, kinds = computed + interrupting.computed, kinds + interrupting.kinds
    assert sessions >= 2
    assert bytes_of(again) == bytes_of(record)
    assert set(computed.values()) == {1} and kinds == hook.kinds, "finished work was done again, or other work"
