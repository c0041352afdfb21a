"""Flower's aggregations as called here, against their papers' formulas in numpy, with a restart between rounds."""

import numpy as np
import pytest
from scipy.stats import trim_mean

from strategies.aggregation import AGGREGATIONS, Aggregator, aggregation_options, check_aggregation

SHAPES = {
    "networks.generator.weight": (3, 2),
    "networks.discriminator.bias": (4,),
    "networks.generator.running_var": (2,),
}
STATISTIC = "networks.generator.running_var"
WEIGHTS = [name for name in SHAPES if name != STATISTIC]


def draw(rng):
    return {name: rng.normal(1, 0.3, shape).astype(np.float32) for name, shape in SHAPES.items()}


def mean(replies, examples, name):
    return sum(n * reply[name].astype(np.float64) for n, reply in zip(examples, replies, strict=True)) / sum(examples)


def rounds_of(name, options, rounds=3, replies=3, plain=(), restart=True):
    """(weights before, replies, examples, weights after) of each round; each round by a new process."""
    rng = np.random.default_rng(0)
    weights, state, found = draw(rng), {}, []
    aggregator = Aggregator(name, options, plain)
    for number in range(1, rounds + 1):
        if restart:
            aggregator = Aggregator(name, options, plain)
            aggregator.load_state(state)
        answers, examples = [draw(rng) for _ in range(replies)], [40, 120, 10][:replies]
        new = aggregator.aggregate(number, weights, answers, examples)
        state = {key: array.copy() for key, array in aggregator.state().items()}
        found.append((weights, answers, examples, new))
        weights = new
    return found


def test_fedavg_is_the_mean_by_number_of_examples():
    for before, replies, examples, after in rounds_of("FedAvg", {}):
        assert list(after) == list(before)
        for name in SHAPES:
            np.testing.assert_allclose(after[name], mean(replies, examples, name), atol=1e-6)
            assert after[name].dtype == np.float32


def test_the_average_of_one_is_that_one_bit_for_bit():
    for _, (reply,), _, after in rounds_of("FedAvg", {}, replies=1):
        assert all(np.array_equal(after[name], reply[name]) for name in SHAPES)


def test_fedmedian_is_the_median_of_each_value():
    for _, replies, _, after in rounds_of("FedMedian", {}):
        for name in SHAPES:
            np.testing.assert_allclose(after[name], np.median([r[name] for r in replies], axis=0), atol=1e-6)


def test_fedtrimmedavg_is_scipys_trimmed_mean():
    for _, replies, _, after in rounds_of("FedTrimmedAvg", {"beta": 0.34}):
        for name in SHAPES:
            np.testing.assert_allclose(after[name], trim_mean(np.stack([r[name] for r in replies]), 0.34), atol=1e-6)


def test_krum_takes_the_reply_nearest_to_another():
    rng = np.random.default_rng(1)
    one = draw(rng)
    near = {name: array + np.float32(0.001) for name, array in one.items()}
    far = {name: array + np.float32(5) for name, array in one.items()}
    after = Aggregator("Krum", {}).aggregate(1, one, [far, one, near], [1, 1, 1])
    assert any(all(np.array_equal(after[n], r[n]) for n in SHAPES) for r in (one, near))


def test_multikrum_and_bulyan_leave_the_outlier_out():
    rng = np.random.default_rng(1)
    honest = [draw(rng) for _ in range(6)]
    outlier = {name: array + np.float32(50) for name, array in honest[0].items()}
    for name, options in (
        ("MultiKrum", {"num_malicious_nodes": 1, "num_nodes_to_select": 3}),
        ("Bulyan", {"num_malicious_nodes": 1}),
    ):
        after = Aggregator(name, options).aggregate(1, honest[0], [outlier, *honest], [1] * 7)
        assert all(np.abs(array).max() < 5 for array in after.values()), name


def test_fedavgm_is_momentum_on_the_rounds_difference():
    """Hsu et al. 2019: v = beta v + (w - mean), w = w - eta v."""
    v = dict.fromkeys(WEIGHTS, 0.0)
    options = {"server_learning_rate": 0.5, "server_momentum": 0.9}
    for before, replies, examples, after in rounds_of("FedAvgM", options, plain=[STATISTIC]):
        for name in WEIGHTS:
            v[name] = 0.9 * v[name] + (before[name].astype(np.float64) - mean(replies, examples, name))
            np.testing.assert_allclose(after[name], before[name] - 0.5 * v[name], atol=1e-5)


@pytest.mark.parametrize("name", ["FedAdagrad", "FedAdam", "FedYogi"])
def test_adaptive_optimizers_are_those_of_reddi_et_al(name):
    """Reddi et al. 2021, algorithm 2, with v_0 = 0; FedAdam with the bias correction of Kingma and Ba that Flower adds."""
    eta, tau, beta_1, beta_2 = 0.02, 1e-3, 0.9, 0.99
    options = {"eta": eta, "tau": tau} | ({} if name == "FedAdagrad" else {"beta_1": beta_1, "beta_2": beta_2})
    if name == "FedAdagrad":
        beta_1 = 0.0
    m, v = dict.fromkeys(WEIGHTS, 0.0), dict.fromkeys(WEIGHTS, 0.0)
    for number, (before, replies, examples, after) in enumerate(rounds_of(name, options, plain=[STATISTIC]), 1):
        rate = eta * np.sqrt(1 - beta_2 ** (number + 1)) / (1 - beta_1 ** (number + 1)) if name == "FedAdam" else eta
        for key in WEIGHTS:
            delta = mean(replies, examples, key) - before[key]
            m[key] = beta_1 * m[key] + (1 - beta_1) * delta
            v[key] = {
                "FedAdagrad": v[key] + delta**2,
                "FedAdam": beta_2 * v[key] + (1 - beta_2) * delta**2,
                "FedYogi": v[key] - (1 - beta_2) * delta**2 * np.sign(v[key] - delta**2),
            }[name]
            np.testing.assert_allclose(after[key], before[key] + rate * m[key] / (np.sqrt(v[key]) + tau), atol=1e-5)


@pytest.mark.parametrize("name", ["FedAvgM", "FedAdagrad", "FedAdam", "FedYogi"])
def test_server_optimizers_leave_statistics_to_the_plain_mean(name):
    for _, replies, examples, after in rounds_of(name, {}, plain=[STATISTIC]):
        np.testing.assert_allclose(after[STATISTIC], mean(replies, examples, STATISTIC), atol=1e-6)


@pytest.mark.parametrize("name", ["FedAvgM", "FedAdagrad", "FedAdam", "FedYogi", "FedMedian", "Krum"])
def test_a_restart_between_rounds_changes_no_bit(name):
    options = {"server_momentum": 0.7} if name == "FedAvgM" else {}
    whole, resumed = (rounds_of(name, options, restart=restart)[-1][-1] for restart in (False, True))
    assert all(np.array_equal(whole[key], resumed[key]) for key in SHAPES)


def test_what_is_handed_in_is_not_changed():
    rng = np.random.default_rng(0)
    for name in AGGREGATIONS:
        before, replies = draw(rng), [draw(rng) for _ in range(7)]
        copies = [{n: a.copy() for n, a in arrays.items()} for arrays in (before, *replies)]
        Aggregator(name, {}).aggregate(1, before, replies, [1] * 7)
        for copy, arrays in zip(copies, (before, *replies), strict=True):
            assert all(np.array_equal(copy[n], arrays[n]) for n in SHAPES), name


@pytest.mark.parametrize("spoil", ["shape", "name"])
def test_replies_that_do_not_fit_are_refused(spoil):
    rng = np.random.default_rng(0)
    before, reply = draw(rng), draw(rng)
    reply["x" if spoil == "name" else WEIGHTS[0]] = np.zeros(1, np.float32)
    with pytest.raises(ValueError, match="a reply does not fit the model: 1 names or shapes differ"):
        Aggregator("FedAvg", {}).aggregate(1, before, [reply], [1])


@pytest.mark.parametrize(
    ("name", "options", "centres", "expected"),
    [
        ("FedSGD", {}, None, "aggregation is 'FedSGD'; known: FedAvg, FedAvgM"),
        (
            "FedAdam",
            {"lr": 1},
            None,
            "aggregation FedAdam has no parameter 'lr'; its parameters: eta, beta_1, beta_2, tau",
        ),
        ("FedAvg", {"eta": 1}, None, "aggregation FedAvg has no parameter 'eta'; its parameters: none"),
        ("Krum", {}, 2, "Krum with num_malicious_nodes 0 needs 3 centres and there are 2; lower"),
        ("Krum", {"num_malicious_nodes": 2}, 4, "needs 5 centres and there are 4"),
        ("Bulyan", {"num_malicious_nodes": 1}, 6, "needs 7 centres and there are 6"),
        ("Krum", {"num_malicious_nodes": -1}, 3, "num_malicious_nodes is -1; it must be a whole number from 0 on"),
        (
            "MultiKrum",
            {"num_nodes_to_select": 1.5},
            3,
            "num_nodes_to_select is 1.5; it must be a whole number from 1 on",
        ),
        ("FedTrimmedAvg", {"beta": 0.5}, 3, "beta is 0.5; it is the share cut off on each side, from 0 to below 0.5"),
    ],
)
def test_an_aggregation_that_cannot_be_is_refused_with_what_would_be_right(name, options, centres, expected):
    with pytest.raises(ValueError) as problem:
        check_aggregation(name, options, centres)
    assert str(problem.value).startswith(expected) or expected in str(problem.value)


def test_every_aggregation_takes_its_own_defaults():
    for name in AGGREGATIONS:
        options = aggregation_options(name)
        check_aggregation(name, options, 7)
        Aggregator(name, options)
