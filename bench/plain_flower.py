"""The training of `many_centres` as a plain Flower app, for `bench.many_centres` to compare with: a ClientApp, a ServerApp, and
`run_simulation`, as in Flower's own examples.

What is computed is the same, with the same seeds, by the same functions of `data_partitions` and `models`: every centre makes
its patches, trains a generator alone, and takes part in a round of federated averaging; the receiver draws images of all of
them and trains the classifiers, whose metrics must be those of our run. What is around it is Flower's alone: a phase's
messages are sent at once, replies live in memory, and nothing is checked, recorded, resumed or reported.

    python -m bench.plain_flower RUN CACHE      # RUN: a finished run folder of ours; prints one line of JSON

Settings travel as JSON in each message's configuration. Patches and drawn images lie in CACHE.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords
from flwr.simulation import run_simulation
from pydantic import TypeAdapter

from data_partitions import SOURCES, PatchDataset, PatchTask, SplitRule, build_patches
from metrics import measure
from models import (
    ClassifierSpec,
    ClassifierTraining,
    GenerativeModel,
    GenerativeTrainer,
    GeneratorSpec,
    PatchArrays,
    fit_generative,
    predict,
)
from models.federated_parts import averaged_state, load_averaged
from reports.run_record import RunRecord
from scenarios.plan import Plan
from scenarios.reader import parse
from strategies import learning
from strategies.ask import Ask

Arrays = Mapping[str, np.ndarray]
RESULT = "plain: "  # begins the line that is printed
client_app = ClientApp()
server_app = ServerApp()


# -- clients -------------------------------------------------------------------------------------------------------------


@client_app.query("patches")
def make_patches(message: Message, context: Context) -> Message:
    return answer(message, {}, patches=len(patches_of(settings_of(message))))


@client_app.train("alone")
def train_alone(message: Message, context: Context) -> Message:
    settings = settings_of(message)
    spec = GeneratorSpec.model_validate(settings["generator"])
    model, images = spec.build(settings["seed"]), positives(patches_of(settings))
    fit = fit_generative(model, images, spec.training, seed=settings["seed"], precision=settings["precision"])
    return answer(message, model.shared_arrays(fit), name=settings["name"])


@client_app.train("round")
def train_round(message: Message, context: Context) -> Message:
    settings = settings_of(message)
    spec = GeneratorSpec.model_validate(settings["generator"])
    model, images = initial_model(spec, settings["build_seed"]), positives(patches_of(settings))
    trainer = GenerativeTrainer(model, spec.training, seed=settings["seed"], precision=settings["precision"])
    load_averaged(model, tensors(arrays_of(message)), statistics=True)
    trainer.advance(images, settings["steps"])
    return answer(message, {name: t.numpy() for name, t in averaged_state(model).items()}, examples=len(images))


@client_app.query("draw")
def draw_images(message: Message, context: Context) -> Message:
    """Images of every generator that came, kept as files. The names of its arrays begin with its own."""
    settings, weights = settings_of(message), {}
    for name, array in arrays_of(message).items():
        generator, _, rest = name.partition("/")
        weights.setdefault(generator, {})[rest] = array
    for one in settings["drawn"]:
        model = GeneratorSpec.model_validate(one["generator"]).build(one["seed"])
        model.load_shared_arrays(weights[one["name"]])
        rng = torch.Generator().manual_seed(one["seed"])
        images = model.sample_stored(one["counts"]["1"], None, rng, precision=one["compute"]["precision"])
        np.save(images_file(settings, one["name"]), images)
    return answer(message, {})


@client_app.train("classifier")
def train_classifier(message: Message, context: Context) -> Message:
    settings = settings_of(message)
    patches = patches_of(settings)
    real, validation, test = (as_arrays(patches.select(split=split)) for split in ("train", "val", "test"))
    foreign = {}
    for name in settings["foreign"]:
        images = np.load(images_file(settings, name))
        foreign["from " + name] = PatchArrays(images, np.arange(len(images)), np.ones(len(images), np.int64))
    spec, precision = ClassifierSpec.model_validate(settings["classifier"]), settings["precision"]
    training, recipe = (
        ClassifierTraining.model_validate(settings["training"]), learning.Recipe.model_validate(settings["recipe"]),
    )  # fmt: skip
    fit = learning.learn(
        spec.build(settings["seed"]), real, foreign, validation, recipe, training, seed=settings["seed"], device="cpu",
        precision=precision,
    )  # fmt: skip
    network = spec.build(settings["seed"])
    network.load_state_dict(fit.state)
    probability = predict(network, test, precision=precision, normalise=training.normalise)
    found = measure(learning.labels_of(test), probability, patches.classes)
    return answer(message, {}, arm=settings["cell"]["arm"], metrics=found)


def settings_of(message: Message) -> dict[str, Any]:
    torch.set_num_threads(1)
    settings = json.loads(str(message.content.config_records["settings"]["json"]))
    return settings | {"precision": settings.get("compute", {}).get("precision")}


def arrays_of(message: Message) -> dict[str, np.ndarray]:
    return {name: array.numpy() for name, array in message.content.array_records["arrays"].items()}


def answer(message: Message, arrays: Arrays, **found: Any) -> Message:
    return Message(record(arrays, found), reply_to=message)


def record(arrays: Arrays | ArrayRecord, settings: Mapping[str, Any]) -> RecordDict:
    if not isinstance(arrays, ArrayRecord):
        arrays = ArrayRecord({name: Array(np.asarray(array, order="C")) for name, array in arrays.items()})
    return RecordDict({"arrays": arrays, "settings": ConfigRecord({"json": json.dumps(settings)})})


def patches_of(settings: Mapping[str, Any]) -> PatchDataset:
    """Made once, then opened from the cache."""
    source: Any = TypeAdapter(SOURCES[settings["data"]["source"]]).validate_python(settings["data"])
    return build_patches(
        source, PatchTask.model_validate(settings["task"]), SplitRule.model_validate(settings["split"]),
        centre=settings["centre"], seed=settings["data_seed"], cache=Path(settings["cache"]),
    )  # fmt: skip


def as_arrays(patches: PatchDataset) -> PatchArrays:
    return PatchArrays(patches.pixels, patches.index, patches.labels)


def positives(patches: PatchDataset) -> PatchArrays:
    return as_arrays(patches.select(split="train", labels=[1]))


def images_file(settings: Mapping[str, Any], generator: str) -> Path:
    return Path(settings["cache"]) / f"images-{generator}.npy"


def initial_model(spec: GeneratorSpec, seed: int) -> GenerativeModel:
    """With which every member of the average begins."""
    model = spec.build(seed)
    if spec.training.ema is not None:
        model.start_average()
    return model


def tensors(arrays: Arrays) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}


# -- server --------------------------------------------------------------------------------------------------------------


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    plan, cache = plan_of(Path(os.environ["PLAIN_RUN"])), os.environ["PLAIN_CACHE"]
    node_of = dict(zip(plan.scenario.centres, nodes_of(grid, len(plan.scenario.centres)), strict=True))
    asks: dict[str, list[Ask]] = {}
    for ask in plan.asks():
        asks.setdefault(ask.kind.name, []).append(ask)
    seconds: dict[str, float] = {}

    def ask_all(
        what: str, jobs: Sequence[tuple[str, Mapping[str, Any]]], arrays: Arrays | None = None
    ) -> list[tuple[Any, ArrayRecord]]:
        """What each client found, and its arrays. Jobs are (centre, settings)."""
        began = time.time()
        sent = record(arrays or {}, {})["arrays"]
        messages = [
            Message(record(sent, {**settings, "centre": centre, "cache": cache}), node_of[centre], what)
            for centre, settings in jobs
        ]
        replies = sorted(grid.send_and_receive(messages), key=lambda reply: reply.metadata.src_node_id)
        for reply in replies:
            if reply.has_error():
                raise RuntimeError(f"{what}: {reply.error.reason}")
        seconds[what] = round(time.time() - began, 1)
        return [(json.loads(str(r.content["settings"]["json"])), r.content["arrays"]) for r in replies]

    (task,) = plan.scenario.all_tasks
    own = {centre: as_json(plan.data(centre, task.name)) for centre in plan.scenario.centres}
    ask_all("query.patches", list(own.items()))

    alone = ask_all("train.alone", [(ask.centre, ask.json) for ask in asks["train_generator"]])
    rounds = asks["train_round"]
    model = initial_model(rounds[0].fixed["generator"], rounds[0].fixed["build_seed"])
    initial = {name: tensor.numpy() for name, tensor in averaged_state(model).items()}
    trained = ask_all("train.round", [(ask.centre, ask.json) for ask in rounds], initial)
    averaged = aggregate_arrayrecords(
        [
            RecordDict({"arrays": arrays, "metrics": MetricRecord({"examples": found["examples"]})})
            for found, arrays in trained
        ],
        "examples",
    )  # fmt: skip
    load_averaged(model, tensors({name: array.numpy() for name, array in averaged.items()}), statistics=True)

    shared = {found["name"]: {name: a.numpy() for name, a in arrays.items()} for found, arrays in alone}
    shared["average"] = model.shared_arrays()
    together = {f"{generator}/{name}": a for generator, weights in shared.items() for name, a in weights.items()}
    (receiver,) = {ask.centre for ask in asks["synthesise"]}
    ask_all("query.draw", [(receiver, {"drawn": [ask.json for ask in asks["synthesise"]]})], together)

    foreign = {arm: delivery.generators for (arm, _, _), delivery in plan.deliveries.items()}
    cells = [
        (receiver, ask.json | {"foreign": foreign.get(ask.fixed["cell"].arm, ())}) for ask in asks["learn_classifier"]
    ]
    learned = ask_all("train.classifier", cells)
    metrics = {found["arm"]: found["metrics"] for found, _ in learned}
    print(RESULT + json.dumps({"seconds": seconds, "metrics": metrics}))


def plan_of(folder: Path) -> Plan:
    """The plan of our run, with the precision that it chose."""
    run = RunRecord.open(folder)
    scenario = parse(run.scenario_yaml, source=str(folder), base=folder)
    return Plan(scenario, {centre: {"device": "cpu", "precision": found} for centre, found in run.precision().items()})


def nodes_of(grid: Grid, count: int) -> list[int]:
    while len(nodes := list(grid.get_node_ids())) < count:
        time.sleep(0.1)
    return sorted(nodes)  # so that replies in the order of nodes are in that of centres


def as_json(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: value.model_dump(mode="json") if hasattr(value, "model_dump") else value for key, value in values.items()
    }


def simulate(run: Path, cache: Path) -> None:
    """Run it with as many centres and workers as our run had."""
    scenario = plan_of(run).scenario
    os.environ |= {"PLAIN_RUN": str(run), "PLAIN_CACHE": str(cache)}
    cache.mkdir(parents=True, exist_ok=True)
    run_simulation(
        server_app, client_app, num_supernodes=len(scenario.centres),
        backend_config={
            "init_args": {"num_cpus": scenario.compute.workers, "log_to_driver": False},
            "client_resources": {"num_cpus": scenario.compute.threads_per_job, "num_gpus": 0.0},
        },
    )  # fmt: skip


if __name__ == "__main__":
    # By its name, so that Ray's workers import the module instead of unpickling all of it with every message.
    from bench import plain_flower

    plain_flower.simulate(Path(sys.argv[1]).absolute(), Path(sys.argv[2]).absolute())
