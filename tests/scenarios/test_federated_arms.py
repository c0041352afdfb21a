"""Arms that train together: every mistake is one line that names key, value and remedy."""

import re

import pytest

from scenarios.plan import Plan
from scenarios.reader import ScenarioError, parse, resolved_yaml

NEW = "arms.x={strategy: %s, model: dcgan, %s}"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("arms.average.quorum=3", r"arms\.average\.quorum: 3, but the arm has 2 centres; lower quorum"),
        ("arms.average.quorum=0", r"arms\.average\.quorum: 0: .*greater than or equal to 1"),
        ("arms.remote.quorum=3", r"arms\.remote\.quorum: 3, but the arm has 2 centres; lower quorum"),
        ("arms.average.aggregation=Krum", r"arms\.average\.aggregation: Krum .*needs 3 centres and there are 2; lower"),
        ("arms.average.aggregation=FedSGD", r"arms\.average: .*aggregation is 'FedSGD'; known: FedAvg, "),
        (
            "arms.average={strategy: fedavg_gan, model: dcgan, aggregation: FedAdam, aggregation_options: {lr: 1}}",
            r"arms\.average: .*aggregation FedAdam has no parameter 'lr'; its parameters: eta",
        ),
        (
            "arms.average={strategy: fedavg_gan, model: dcgan, aggregation: FedTrimmedAvg, aggregation_options: {beta: 0.7}}",
            r"arms\.average: .*beta is 0\.7; .*below 0\.5",
        ),
        (
            NEW % ("fedavg_gan", "aggregation: FedMedian, secure_aggregation: true"),
            r"arms\.x: .*secure_aggregation is true, but aggregation FedMedian compares the weights of single centres, which a secure sum "
            r"hides; name FedAvg .* or set secure_aggregation: false",
        ),
        (
            "arms.average.secure_aggregation=true",
            r"arms\.average\.secure_aggregation: true, but 2 centres train together, .*fewer than 3 .*; add centres, or set "
            r"secure_aggregation: false",
        ),
        (NEW % ("cyclic", "secure_aggregation: true"), r"arms\.x: .*unknown key secure_aggregation"),
        ("arms.average.local_stepz=3", r"arms\.average: .*unknown key local_stepz; dcgan takes"),
        ("arms.average.steps=3", r"arms\.average: .*steps cannot be set here: the arm's other keys say how long"),
        ("arms.average.model=vae", r"arms\.average\.model: .*no model 'vae'; known models: dcgan"),
        ("arms.average.transport=fp8", r"arms\.average\.transport: 'fp8': .*fp32"),
        ("arms.average.centres=[B, Z]", r"arms\.average\.centres: no centre 'Z'; centres: A, B, C"),
        ("arms.average.centres=[A, B]", r"arms\.average\.centres: centre 'A' lacks the role provider"),
        ("arms.average.classes=both", r"arms\.average\.classes: 'healthy' is shared, but its model makes lesion only"),
        ("arms.average.fidelity.spaces=[inception]", r"fidelity\.spaces\.0: .*no feature space 'inception'; known feature spaces: "),
        (NEW % ("dm_gan", "exchange: generator, steps: each"), r"arms\.x: .*one gradient per job; set steps: mean"),
        (NEW % ("dm_gan", "noise: 1.0"), r"arms\.x: .*noise is a multiple of clip, and clip is not set; set clip"),
        (NEW % ("dm_gan", "lock_step: true, quorum: 2"), r"arms\.x: .*quorum has no meaning in lock-step.*remove it"),
        (NEW % ("dm_gan", "lock_step: true, max_staleness: 2"), r"max_staleness has no meaning in lock-step"),
        ("arms.x={strategy: dm_gan, model: flow_matching}", r"'flow_matching', .*; name a GAN: dcgan, .*or one of a plug-in"),
        ("arms.x={strategy: md_gan, model: flow_matching}", r"'flow_matching', .*; name a GAN: dcgan, .*or one of a plug-in"),
        (NEW % ("md_gan", "centres: [B]"), r"arms\.x\.centres: md_gan .*has one centre; name two"),
        (NEW % ("md_gan", "quorum: 1"), r"arms\.x: .*unknown key quorum"),
        ("centres.B.availability={dropout: 1.0}", r"availability\.dropout: 1\.0: .*less than 1"),
        ("centres.B.availability={speed: 0}", r"availability\.speed: 0.*greater than 0"),
        ("centres.B.availability={outages: [{from_s: 5, to_s: 5}]}", r"outages\.0: .*an outage ends after it began"),
        (
            "arms.average.growing=[{steps: 2, image_size: 16, batch_size: 4}, {steps: 2, image_size: 32, batch_size: 4}]",
            r"arms\.average: growing has 2 stages, but this model is trained at \d+ px only; remove growing \(task 'lesion'\)",
        ),
        ("arms.average.growing=[{steps: 2, image_size: 16}]", r"growing\.0\.batch_size: is missing"),
        ("arms.remote.sampling=poisson", r"arms\.remote: sampling is poisson, but .* have one size; set sampling: permutation"),
        (NEW % ("fedavg_gan", "ema: 0.9, ema_images: 5"), r"ema is 0\.9 and ema_images 5; set one of them to null"),
        ("clock.step_s=0", r"clock\.step_s: 0.*greater than 0"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_federated_arm_is_one_line(override, expected, federated):
    with pytest.raises(ScenarioError) as problem:
        federated(override)
    text = str(problem.value)
    assert "\n" not in text and text.startswith("federated.yaml: "), text
    assert re.search(expected, text), text


def test_a_federated_scenario_survives_its_own_resolution(federated, tmp_path):
    scenario = federated(faults=True)
    again = parse(resolved_yaml(scenario), source="resolved", base=tmp_path)
    assert resolved_yaml(again) == resolved_yaml(scenario)
    first, second = (
        [(ask.kind.name, ask.centre, ask.times, ask.json) for ask in Plan(s).asks()] for s in (scenario, again)
    )
    assert first == second


def test_a_federation_has_seeds_of_its_own_for_every_arm_and_centre(federated):
    plan = Plan(federated("arms.average.alone=true"))
    seeds = {
        (one.purpose, ask.centre): ask.fixed["seed"]
        for one in plan.exchanges for ask in one.asks if ask.kind.name == "train_round"
    }  # fmt: skip
    together, alone, ring = (seeds[purpose, "B"] for purpose in ("average/lesion", "average/lesion/B", "ring/lesion"))
    # A centre alone draws what it draws in the federation: the two are compared.
    assert alone == together and len({together, ring, seeds["average/lesion", "C"]}) == 3
    assert len({one.purpose for one in plan.exchanges}) == len(plan.exchanges)


@pytest.mark.parametrize(
    ("keys", "kinds"),
    [
        ("", {"train_summed_round"}),
        ("aggregation: FedAdam", {"train_summed_round"}),
        ("secure_aggregation: true", {"train_summed_round"}),
        ("secure_aggregation: false", {"train_round"}),
        ("aggregation: FedMedian", {"train_round"}),
        ("centres: [B, C]", {"train_round"}),
        ("alone: true", {"train_summed_round", "train_round"}),
    ],
)
def test_three_centres_whose_mean_is_enough_are_summed_unless_the_scenario_says_otherwise(keys, kinds, federated):
    scenario = federated(
        "centres.D={roles: [provider], data: {source: phantom, patients: 24, scanner: film}}",
        f"arms={{real: {{strategy: local}}, x: {{strategy: fedavg_gan, model: dcgan, {keys}}}}}",
    )
    for deployed in (False, True):
        asks = [ask for ask in Plan(scenario, deployed=deployed).asks() if ask.strategy == "fedavg_gan"]
        assert {ask.kind.name for ask in asks if ask.kind.averaged} == kinds
        opening = {ask.kind.name: ask.times for ask in asks if ask.kind.name.startswith("sum_")}
        summed = deployed and "train_summed_round" in kinds
        assert opening == ({"sum_keys": 1, "sum_shares": 1, "sum_survivors": 20, "sum_opening": 20} if summed else {})
        assert all(ask.fixed["masked"] == deployed for ask in asks if ask.kind.name == "train_summed_round")
