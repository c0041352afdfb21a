"""A key that would change nothing where it stands is refused, not ignored: whoever wrote it expects something of it."""

import re

import pytest

from federation.wire.real_clock import RealClock
from scenarios.plan import Plan
from scenarios.reader import ScenarioError
from strategies.fedavg_gan.local import LocalRules
from strategies.fedavg_gan.server import FederatedTraining
from strategies.members import RoundSettings

# What is said of a key of another strategy; arms of generative models list what theirs takes, others all their keys.
UNKNOWN_BESIDE_A_MODEL, UNKNOWN = (
    r"arms\.x: .*unknown key {key}; dcgan takes ",
    r"arms\.x\.{key}: unknown key; known keys: ",
)
NO_IMAGE = (
    r"arms\.x: .*{key} has no meaning here: no image is added, and rounds x local_steps is the schedule; remove it"
)
LOCK_STEP = r"arms\.x: .*{key} has no meaning in lock-step, which waits for every centre; remove it"

KEYS = {
    ("cyclic", UNKNOWN_BESIDE_A_MODEL): (
        "quorum: 1", "round_timeout_s: 5", "aggregation: FedAdam", "proximal_mu: 1.0", "alone: true", "average_ema: rebuild",
    ),
    ("pooled_gan", UNKNOWN_BESIDE_A_MODEL): (
        "quorum: 1", "round_timeout_s: 5", "aggregation: FedAdam", "proximal_mu: 1.0", "optimizer: reset", "batch_norm: local",
    ),
    ("dm_gan", UNKNOWN_BESIDE_A_MODEL): ("rounds: 2", "local_steps: 2", "swap_every: 3", "proximal_mu: 1.0", "optimizer: keep"),
    ("md_gan", UNKNOWN_BESIDE_A_MODEL): (
        "lock_step: true", "exchange: generator", "max_staleness: 2", "staleness_power: 1.0", "update_timeout_s: 5",
    ),
    ("dm_gan, lock_step: true", LOCK_STEP): ("quorum: 2", "max_staleness: 2", "update_timeout_s: 5"),
    ("fedavg_classifier", NO_IMAGE): (
        "synthetic: 8", "classes: both", "use: pretrain", "synthetic_share: 0.3", "schedule: {real: 3}",
    ),
    ("fedavg_classifier", UNKNOWN): ("model: dcgan", "conditional: true", "batch_norm: local", "fidelity: {images: 16}"),
    ("local", UNKNOWN): ("centres: [B]", "rounds: 2", "generators: [b]"),
    ("pooled, centres: [B]", UNKNOWN): ("generators: [b]", "choose: {by: distance}", "oversample: 3"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("strategy", "key", "told"), [(strategy, key, told) for (strategy, told), keys in KEYS.items() for key in keys]
)
def test_a_key_without_effect_is_refused_with_its_name(strategy, key, told, federated):
    model = "" if strategy.startswith(("fedavg_classifier", "local", "pooled,")) else ", model: dcgan"
    with pytest.raises(ScenarioError) as problem:
        federated(f"arms.x={{strategy: {strategy}{model}, {key}}}")
    text = str(problem.value)
    assert "\n" not in text and re.search(told.format(key=key.split(":")[0]), text), text
    federated(f"arms.x={{strategy: {strategy}{model}}}")  # without the key nothing is wrong


def test_settings_of_the_study_that_a_federated_classifier_does_take(federated):
    scenario = federated("arms.x={strategy: fedavg_classifier, augmentation: none, normalise: per_patch, title: x}")
    settings = scenario.arms["x"].settings(scenario.study)
    assert (settings.augmentation, settings.normalise) == ("none", "per_patch")


@pytest.mark.parametrize("parts", ["study.real_fraction=[0.5]", "study.real_images=[10]"])
def test_a_receiver_does_not_train_with_all_its_patches_where_a_cell_may_use_a_part(parts, federated):
    also = ("centres.A.roles=[receiver, provider]", "arms.average.centres=[A, B]")
    federated(*also)
    federated(*also[:1], "arms.average.centres=[B, C]", "arms.ring.centres=[B]", "arms.remote.centres=[B]", parts)
    others = ("arms.ring.centres=[B]", "arms.remote.centres=[B]")
    with pytest.raises(
        ScenarioError, match=r"arms\.average\.centres: 'A' trains with all its patches and also receives"
    ):
        federated(*also, *others, parts)


def federations(plan):
    """The federations in rounds that a study plans."""
    begun = [one.begin(None, RealClock()) for one in plan.exchanges]
    return [one._federation for one in begun if isinstance(one, FederatedTraining)]


def test_what_belongs_to_averaging_is_left_out_of_the_trainings_to_compare_with(federated):
    """A member alone is plain local training, however its federation averages, waits and compresses."""
    settings = (
        "quorum: 1, round_timeout_s: 9, aggregation: FedAdam, proximal_mu: 0.1, transport: int8, optimizer: reset"
    )
    arm = (
        f"{{strategy: fedavg_gan, model: dcgan, rounds: 4, local_steps: 2, alone: true, batch_norm: local, {settings}}}"
    )
    plans = [f for f in federations(Plan(federated(f"arms.x={arm}"))) if f.arm == "x"]
    assert [p.series for p in plans] == ["federation", "alone", "alone"]
    together, *alone = plans
    assert (together.aggregation, together.settings.transport, together.settings.quorum) == ("FedAdam", "int8", 1)
    assert (together.rules.proximal_mu, together.rules.batch_norm) == (0.1, "local")
    for plan in alone:
        assert (plan.aggregation, plan.options, plan.rules) == ("FedAvg", {}, LocalRules())
        assert plan.settings == RoundSettings(4, 2) and plan.members[0].ask.fixed["rules"] == LocalRules()
