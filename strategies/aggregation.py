"""Averaging of weights by any of Flower's own aggregations, named in a scenario.

Flower's strategy classes own a loop without resume, quorum or retry; only their aggregation is called here, with the state
that they keep between rounds (momentum, second moments) taken out and put back, so that it survives a restart.

Server optimizers (FedAvgM, FedAdam, ...) treat the difference of the round as a gradient. That is right for trained
weights and wrong for batch norm's variances, which could become negative, and for moving averages, which would be
averaged twice: those two are averaged plainly, by number of examples. Robust aggregations (medians, Krum) take everything.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, MetricRecord, RecordDict
from flwr.serverapp import strategy as flower

from federation.wire.arrays import write_array

AGGREGATIONS: dict[str, type[flower.FedAvg]] = {
    "FedAvg": flower.FedAvg,
    "FedAvgM": flower.FedAvgM,
    "FedAdagrad": flower.FedAdagrad,
    "FedAdam": flower.FedAdam,
    "FedYogi": flower.FedYogi,
    "FedMedian": flower.FedMedian,
    "FedTrimmedAvg": flower.FedTrimmedAvg,
    "Krum": flower.Krum,
    "MultiKrum": flower.MultiKrum,
    "Bulyan": flower.Bulyan,
}
# Those that look at single answers; the others need only their mean.
_OF_SINGLES = ("FedMedian", "FedTrimmedAvg", "Krum", "MultiKrum", "Bulyan")
_OPTIMIZERS = ("FedAvgM", "FedAdagrad", "FedAdam", "FedYogi")
# Arguments of Flower's classes that concern its own loop.
_NOT_OURS = {
    "fraction_train", "fraction_evaluate", "min_train_nodes", "min_evaluate_nodes", "min_available_nodes", "weighted_by_key",
    "arrayrecord_key", "configrecord_key", "train_metrics_aggr_fn", "evaluate_metrics_aggr_fn", "self",
    "selection_rule",  # an object
    "eta_l",  # the centres' learning rate is the model's own
}  # fmt: skip
_STATE = ("m_t", "v_t", "momentum_vector")

Arrays = Mapping[str, np.ndarray]


def aggregation_options(name: str) -> dict[str, Any]:
    """The parameters of an aggregation and Flower's defaults."""
    parameters = inspect.signature(AGGREGATIONS[name].__init__).parameters
    return {key: p.default for key, p in parameters.items() if key not in _NOT_OURS}


def check_aggregation(name: str, options: Mapping[str, Any], centres: int | None = None) -> None:
    """Refuse an unknown aggregation, an unknown parameter, or (where their number is known) too few centres for it.

    Raises:
        ValueError: with what would be right.
    """
    if name not in AGGREGATIONS:
        raise ValueError(f"aggregation is {name!r}; known: {', '.join(AGGREGATIONS)}")
    known = aggregation_options(name)
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(
            f"aggregation {name} has no parameter {unknown[0]!r}; its parameters: {', '.join(known) or 'none'}"
        )
    for key, lowest in (("num_malicious_nodes", 0), ("num_nodes_to_select", 1)):
        if key in options and (options[key] != int(options[key]) or options[key] < lowest):
            raise ValueError(f"{key} is {options[key]}; it must be a whole number from {lowest} on")
    if "beta" in options and not 0 <= options["beta"] < 0.5:
        raise ValueError(f"beta is {options['beta']}; it is the share cut off on each side, from 0 to below 0.5")
    if centres is not None and centres < least_replies(name, options):
        malicious = options.get("num_malicious_nodes", 0)
        raise ValueError(
            f"{name} with num_malicious_nodes {malicious} needs {least_replies(name, options)} centres and there are {centres}; "
            "lower num_malicious_nodes or name another aggregation"
        )


def needs_single_answers(name: str) -> bool:
    """Whether an aggregation compares the answers of single centres, and a sum of them is not enough."""
    return name in _OF_SINGLES


def least_replies(name: str, options: Mapping[str, Any]) -> int:
    """Replies that an aggregation needs: those that tolerate f malicious centres among n are defined for large n only.

    Krum and MultiKrum: n > 2 + f (Blanchard et al. 2017, whose proof needs n > 2 + 2 f). Bulyan: n >= 4 f + 3.
    """
    malicious = int(options.get("num_malicious_nodes", 0))
    return {"Krum": malicious + 3, "MultiKrum": malicious + 3, "Bulyan": 4 * malicious + 3}.get(name, 1)


def reach_after(name: str, options: Mapping[str, Any], local: float) -> float:
    """How far one weight moves in a round at most, where each centre moves it by at most `local`.

    A mean moves no further than what is averaged. FedAvgM multiplies by its rate and adds up its momentum; the adaptive ones move a
    weight by about their own rate, and in a rare round by several times as much.
    """
    given = {**aggregation_options(name), **options}
    if name == "FedAvgM":
        return local * float(given["server_learning_rate"]) / (1 - min(0.99, float(given["server_momentum"])))
    if name in _OPTIMIZERS:
        return max(local, 8 * float(given["eta"]))
    return local


@dataclass(frozen=True)
class _Reply:
    """What Flower's aggregations look at of a message."""

    content: RecordDict

    def has_error(self) -> bool:
        return False


class Aggregator:
    """Averages the replies of one round after another.

    Args:
        name: of `AGGREGATIONS`.
        options: its parameters.
        plain: names of arrays that a server optimizer must not touch (statistics, moving averages).

    Attributes:
        least: replies that a round needs at least.
    """

    def __init__(self, name: str, options: Mapping[str, Any], plain: Sequence[str] = ()):
        self._optimizes = name in _OPTIMIZERS
        self._plain = frozenset(plain) if self._optimizes else frozenset()
        # The lower bounds on nodes are those of Flower's loop; the quorum here is the strategy's.
        self._strategy = AGGREGATIONS[name](**dict(options))
        self.least = least_replies(name, options)
        self._average = flower.FedAvg()

    def aggregate(
        self, number: int, before: Arrays, replies: Sequence[Arrays], examples: Sequence[int]
    ) -> dict[str, np.ndarray]:
        """The new weights of round `number`, counted from 1.

        Args:
            before: the weights that the round began with; names and shapes of the replies are the same.
            examples: weight of each reply.

        Raises:
            ValueError: names or shapes differ between replies.
        """
        for reply in replies:
            wrong = sorted(set(before) ^ set(reply)) or [k for k in before if reply[k].shape != before[k].shape]
            if wrong:
                raise ValueError(
                    f"a reply does not fit the model: {len(wrong)} names or shapes differ, first {wrong[0]!r}"
                )
        plain = [name for name in before if name in self._plain]
        new = self._call(self._strategy, number, before, replies, examples, [n for n in before if n not in self._plain])
        if plain:
            new |= self._call(self._average, number, before, replies, examples, plain)
        return {name: np.asarray(new[name], dtype=before[name].dtype) for name in before}

    def _call(self, strategy: Any, number: int, before: Arrays, replies: Sequence[Arrays], examples: Sequence[int],
              names: Sequence[str]) -> dict[str, np.ndarray]:  # fmt: skip
        if hasattr(strategy, "current_arrays"):
            current = {name: before[name] for name in names}
            as_record = isinstance(strategy, flower.FedAvgM)
            strategy.current_arrays = _record(current) if as_record else current
        messages = [
            _Reply(RecordDict({"arrays": _record({n: reply[n] for n in names}), "metrics": MetricRecord({"num-examples": count})}))
            for reply, count in zip(replies, examples, strict=True)
        ]  # fmt: skip
        log = logging.getLogger("flwr")
        level = log.level
        log.setLevel(logging.WARNING)  # a line per round and arm would bury everything else
        try:
            arrays, _ = strategy.aggregate_train(number, messages)
        finally:
            log.setLevel(level)
        return {name: array.numpy() for name, array in arrays.items()}

    def state(self) -> dict[str, np.ndarray]:
        """What the next round depends on beside the weights."""
        state: dict[str, np.ndarray] = {}
        for kind in _STATE:
            value = getattr(self._strategy, kind, None)
            named = dict(enumerate(value)) if isinstance(value, list) else value or {}
            state |= {f"{kind}/{name}": np.asarray(array) for name, array in named.items()}
        return state

    def load_state(self, state: Arrays) -> None:
        """Inverse of `state`."""
        for kind in _STATE:
            own = {k.removeprefix(f"{kind}/"): v.copy() for k, v in state.items() if k.startswith(f"{kind}/")}
            if own:
                as_list = kind == "momentum_vector"
                setattr(self._strategy, kind, [own[str(i)] for i in range(len(own))] if as_list else own)


def _record(arrays: Arrays) -> ArrayRecord:
    return ArrayRecord({name: write_array(array) for name, array in arrays.items()})
