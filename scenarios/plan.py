"""From a scenario to units of work: what each phase asks of whom. Pure: nothing is sent, nothing is computed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from basics.seeds import derive_seed
from federation.wire.availability import Availability
from models import ClassifierSpec, GenerativeTraining, GeneratorPackage, GeneratorSpec
from models.shapes_only import shapes_only
from scenarios.arms import DmGANArm, FedAvgClassifierArm, GenerativeArm, LocalArm, MdGANArm, OneShotArm, PooledArm
from scenarios.scenario import Scenario
from scenarios.sections import ClassifierChoice, Generator, Task
from strategies.delivery import Delivery, portions
from strategies.dm_gan_jobs import job_problem
from strategies.one_shot import Order
from strategies.pooled import Transfer
from strategies.strategy import Generated

# Seed of which patients are drawn into splits and subsets; the same for all arms, so that arms are compared in pairs.
_SPLIT = "split"


@dataclass(frozen=True)
class Cell:
    """One classifier to be trained: the smallest piece of the study.

    Attributes:
        fraction, images: size of the receiver's training set; one of them is None.
    """

    arm: str
    strategy: str
    receiver: str
    task: str
    classifier: ClassifierChoice
    fraction: float | None
    images: int | None
    repeat: int

    @property
    def label(self) -> str:
        size = f"{self.images} images" if self.images else f"{self.fraction:.0%}"
        return f"{self.arm} · {self.classifier.model} · {size} · repeat {self.repeat}"


class Plan:
    """What a scenario asks for.

    Args:
        scenario: the study.
        compute: by centre, what the survey found: {"device", "threads", "precision": {model name: "fp32" | "bf16"}};
            empty before the survey (then settings are shown as written).
        files: False where the files that the scenario names (packages, pretrained weights) are not at hand, as at a centre
            that looks at what it is asked: what follows from their content is then empty.
    """

    def __init__(
        self, scenario: Scenario, compute: Mapping[str, Mapping[str, Any]] | None = None, *, files: bool = True
    ):
        self.scenario = scenario
        self._compute, self._files = compute or {}, files
        self._packages = {
            name: read_package(name, g.package)
            for name, g in scenario.generators.items() if g.package is not None and files
        }  # fmt: skip

    @cached_property
    def _pretrained_digests(self) -> dict[str, str | None]:
        """SHA-256 of each classifier's weights file; read once, not once a cell."""
        return {
            choice.model: file_digest(choice.pretrained) if self._files else None
            for choice in self.scenario.study.classifiers
        }

    @cached_property
    def _trained_at(self) -> dict[str, list[str]]:
        """Generators by the centre that trains them."""
        trained: dict[str, list[str]] = {}
        for name, generator in self.scenario.generators.items():
            if generator.centre is not None:
                trained.setdefault(generator.centre, []).append(name)
        return trained

    @cached_property
    def _taking_part(self) -> dict[str, frozenset[str]]:
        """By arm, the centres that train or send patches in it; those of generators and the receivers are no part."""
        arms = self.scenario.arms.items()
        return {name: frozenset(self.scenario.members(arm)) for name, arm in arms if hasattr(arm, "centres")}

    # -- pieces that bodies are made of --------------------------------------------------------------------------

    def task(self, name: str) -> Task:
        return next(task for task in self.scenario.all_tasks if task.name == name)

    def data_body(self, centre: str, task: str | None) -> dict[str, Any]:
        """What a centre needs to find its patches (in simulation; a deployed node has its own data section)."""
        s = self.scenario
        split = s.split.model_copy(update={"test_only": set(s.centres[centre].roles) == {"test"}})
        body = {
            "data": s.centres[centre].data.model_dump(mode="json"),
            "split": split.model_dump(mode="json"),
            "data_seed": derive_seed(s.seed, _SPLIT, centre),
        }
        return body | ({"task": self.task(task).model_dump(mode="json")} if task is not None else {})

    def compute_body(self, centre: str, model: str = "") -> dict[str, Any]:
        """Device, threads and precision for one model at one centre."""
        found = self._compute.get(centre, {})
        setting = self.scenario.compute
        return {
            "device": found.get("device", setting.device),
            "threads": setting.threads_per_job,
            "precision": found.get("precision", {}).get(model, setting.precision),
        }

    def generator_spec(self, name: str, task: str) -> dict[str, Any]:
        """JSON of a `models.GeneratorSpec`, of a generator or of an arm that trains one."""
        if name in self._packages:
            return self._packages[name].spec.model_dump(mode="json")
        source = self.scenario.generators.get(name) or self.scenario.arms[name]
        if isinstance(source, Generator) and source.package is not None:
            return {}  # its file is not at hand
        assert isinstance(source, Generator | GenerativeArm)
        return generator_spec_of(source, self.task(task)).model_dump(mode="json")

    def classifier_spec(self, choice: ClassifierChoice, task: str) -> dict[str, Any]:
        """JSON of a `models.ClassifierSpec`."""
        return classifier_spec_of(choice, self.task(task)).model_dump(mode="json")

    def tasks_of(self, generator: str) -> list[str]:
        """Tasks that a generator (or an arm that trains one) serves."""
        wanted = self.scenario.generators[generator].tasks if generator in self.scenario.generators else None
        return [t.name for t in self.scenario.all_tasks if wanted is None or t.name in wanted]

    # -- phases --------------------------------------------------------------------------------------------------

    def survey_body(self, centre: str) -> dict[str, Any]:
        """Survey of one centre: its tasks with what they need, and the models whose precision is to be probed."""
        s = self.scenario
        roles = s.centres[centre].roles
        tasks: list[dict[str, Any]] = []
        models: dict[str, dict[str, Any]] = {}
        for task in s.all_tasks:
            trained = [n for n in self._trained_at.get(centre, ()) if task.name in self.tasks_of(n)]
            batches = [
                {"batch_size": s.generators[n].training["batch_size"], "both": s.generators[n].conditional}
                for n in trained
            ]
            part = [n for n, centres in self._taking_part.items() if centre in centres]
            together = [n for n in part if isinstance(s.arms[n], GenerativeArm)]
            batches += [_batch(s.arms[n]) for n in together]
            trained += together
            learns = "receiver" in roles or any(isinstance(s.arms[n], FedAvgClassifierArm) for n in part)
            pooled = any(isinstance(s.arms[n], PooledArm) for n in part)
            needed = learns or bool(trained) or pooled
            tasks.append(
                {
                    "task": task.model_dump(mode="json"),
                    "needs": {
                        "positives": s.study.minimum_positives if needed else 0,
                        "negatives": 1 if needed else 0,
                        "batches": batches,
                        "images": max(s.study.real_images) if s.study.real_images and "receiver" in roles else 0,
                        "validation": "receiver" in roles,
                    },
                }
            )
            models |= {
                probe_key("generator", n, task.name): {"generator": self.generator_spec(n, task.name)} for n in trained
            }
            if "receiver" in roles:
                models |= {
                    probe_key("generator", n, task.name): {"generator": self.generator_spec(n, task.name)}
                    for name, arm in s.arms.items()
                    for n in _generators_of(name, arm) if task.name in self.tasks_of(n)
                }  # fmt: skip
            if learns:
                models |= {
                    probe_key("classifier", c.model, task.name): {"classifier": self.classifier_spec(c, task.name)}
                    for c in s.study.classifiers
                }
        body = self.data_body(centre, None)
        return body | {"tasks": tasks, "models": models, "compute": self.compute_body(centre)}

    def orders(self) -> list[Order]:
        """Every generator that some arm uses and a centre trains, for every task it serves."""
        orders = []
        for name, task in self._used():
            centre = self.scenario.generators[name].centre
            if centre is None:
                continue
            spec = self.generator_spec(name, task)
            body = self.data_body(centre, task) | {
                "generator": spec,
                "name": name,
                "seed": derive_seed(self.scenario.seed, f"generator/{name}/{task}", centre),
                "compute": self.compute_body(centre, probe_key("generator", name, task)),
            }
            label = f"{name} ({task})" if len(self.scenario.all_tasks) > 1 else name
            orders.append(Order(name, task, centre, body, spec, label))
        return orders

    def packages(self) -> dict[tuple[str, str], Generated]:
        """Generators at hand that some arm uses, by (name, task)."""
        return {
            (name, task): Generated(package.digest, package.spec.model_dump(mode="json"), package.weights)
            for name, task in self._used()
            if (package := self._packages.get(name)) is not None
        }

    def _used(self) -> list[tuple[str, str]]:
        used = {g for arm in self.scenario.arms.values() if isinstance(arm, OneShotArm) for g in arm.generators}
        return [(name, task) for name in self.scenario.generators if name in used for task in self.tasks_of(name)]

    def deliveries(self) -> list[Delivery]:
        """What the arms that share generators bring to each receiver."""
        deliveries = []
        for arm_name, arm, receiver, task in self._arm_places():
            if not isinstance(arm, OneShotArm | GenerativeArm):
                continue
            settings = arm.settings(self.scenario.study)
            generators = self.foreign_generators(arm_name, arm, receiver, task)
            bodies = tuple(
                {
                    "seed": derive_seed(self.scenario.seed, f"synthesis/{generator}/{task}", receiver),
                    "compute": self.compute_body(receiver, probe_key("generator", generator, task)),
                }
                for generator in generators
            )
            classes = (0, 1) if settings.classes == "both" else (1,)
            # Of which some are chosen, each makes as many as all together: one may be chosen alone.
            chosen = isinstance(arm, OneShotArm) and arm.choose is not None
            images = settings.images(len(generators))
            counts = (images,) * len(generators) if chosen else portions(images, generators)
            deliveries.append(Delivery(arm_name, receiver, task, generators, counts, classes, bodies))
        return deliveries

    def transfers(self) -> list[Transfer]:
        """What the pooled arms bring to each receiver."""
        transfers = []
        for arm_name, arm, receiver, task in self._arm_places():
            if not isinstance(arm, PooledArm):
                continue
            classes = [0, 1] if arm.settings(self.scenario.study).classes == "both" else [1]
            bodies = {c: self.moving_body(c, task, classes, arm.patches) for c in arm.centres if c != receiver}
            transfers.append(Transfer(arm_name, receiver, task, bodies))
        return transfers

    def moving_body(self, centre: str, task: str, classes: list[int], patches: int | None) -> dict[str, Any]:
        """What a centre needs to send real patches."""
        seed = derive_seed(self.scenario.seed, f"pooled/{task}", centre)
        return self.data_body(centre, task) | {"classes": classes, "patches": patches, "seed": seed}

    def availability(self, centres: Iterable[str], *, faults: bool = True) -> dict[str, Availability]:
        """How simulated centres behave; without faults only their speeds."""
        found = {centre: self.scenario.centres[centre].availability.build() for centre in centres}
        return found if faults else {centre: Availability(speed=own.speed) for centre, own in found.items()}

    def synthesised(self) -> set[tuple[str, str, str, tuple[int, ...]]]:
        """(receiver, generator, task, classes) of every pool of synthetic images."""
        return {(d.receiver, g, d.task, d.classes) for d in self.deliveries() for g in d.generators}

    def cells(self) -> list[Cell]:
        """All cells, ordered so that a first comparison of all arms is there early."""
        s = self.scenario
        return [
            Cell(arm_name, arm.strategy, receiver, task, classifier, fraction, images, repeat)
            for repeat in range(s.repeats)
            for fraction, images in s.study.sizes
            for classifier in s.study.classifiers
            for arm_name, arm, receiver, task in self._arm_places()
        ]

    def cell_body(self, cell: Cell, pools: list[dict[str, Any]]) -> dict[str, Any]:
        """What the receiver needs for a cell, beside its pools."""
        s = self.scenario
        arm = s.arms[cell.arm]
        settings = arm.settings(s.study)
        uses_foreign = bool(pools) or (isinstance(arm, LocalArm) and arm.oversample is not None)
        training = s.study.training.model_copy(
            update={"augmentation": settings.augmentation, "normalise": settings.normalise}
        )
        return self.data_body(cell.receiver, cell.task) | {
            "cell": {
                "arm": cell.arm, "strategy": cell.strategy, "task": cell.task, "classifier": cell.classifier.model,
                "real_fraction": cell.fraction, "real_images": cell.images, "repeat": cell.repeat, "receiver": cell.receiver,
            },
            "classifier": self.classifier_spec(cell.classifier, cell.task),
            # The weights' content, not only their path, decides the result.
            "pretrained_sha256": self._pretrained_digests[cell.classifier.model],
            "training": training.model_dump(mode="json"),
            "recipe": {
                "use": settings.use if uses_foreign else "none",
                "steps": settings.schedule.model_dump(mode="json"),
                "synthetic_share": settings.synthetic_share,
            },
            "size": {"fraction": cell.fraction, "images": cell.images},
            "pools": pools,
            "choose": arm.choose.model_dump(mode="json") if isinstance(arm, OneShotArm) and arm.choose else None,
            "oversample": arm.oversample if isinstance(arm, LocalArm) else None,
            "subset_seed": derive_seed(s.seed, f"subset/{cell.task}", cell.receiver, cell.repeat),
            "seed": derive_seed(s.seed, f"classifier/{cell.task}/{cell.classifier.model}", cell.receiver, cell.repeat),
            "send_classifier": bool(self.test_centres(cell)),
            "compute": self.compute_body(cell.receiver, probe_key("classifier", cell.classifier.model, cell.task)),
        }  # fmt: skip

    def test_body(self, cell: Cell, centre: str) -> dict[str, Any]:
        """What another centre needs to test a cell's classifier."""
        learned = self.cell_body(cell, [])
        return self.data_body(centre, cell.task) | {
            "cell": learned["cell"], "training": learned["training"],
            # Its weights travel; a file of pretrained ones is of no use there.
            "classifier": learned["classifier"] | {"pretrained": None},
            "seed": learned["seed"],
            "compute": learned["compute"] | {"device": self.compute_body(centre)["device"]},
        }  # fmt: skip

    def test_centres(self, cell: Cell) -> list[str]:
        """Centres beside the receiver where a cell is tested."""
        return [centre for centre in self.scenario.study.test_on if centre != cell.receiver]

    def foreign_generators(self, name: str, arm: Any, receiver: str, task: str) -> tuple[str, ...]:
        """The arm's generators that come from another centre and serve the task. A receiver's own are no sharing."""
        if isinstance(arm, GenerativeArm):
            return (name,) if any(centre != receiver for centre in self.scenario.members(arm)) else ()
        generators = self.scenario.generators
        return tuple(g for g in arm.generators if generators[g].centre != receiver and task in self.tasks_of(g))

    def _arm_places(self):
        """(arm name, arm, receiver, task) wherever an arm can run; an arm that would bring nothing foreign cannot."""
        for task in self.scenario.all_tasks:
            for name, arm in self.scenario.arms.items():
                for receiver in arm.receivers or self.scenario.receivers:
                    shares = isinstance(arm, OneShotArm | GenerativeArm)
                    if shares and not self.foreign_generators(name, arm, receiver, task.name):
                        continue
                    if isinstance(arm, PooledArm) and not [c for c in arm.centres if c != receiver]:
                        continue
                    if isinstance(arm, FedAvgClassifierArm) and len(self.scenario.members(arm, receiver)) < 2:
                        continue
                    yield name, arm, receiver, task.name


def _batch(arm: Any) -> dict[str, Any]:
    """What an arm's generative model needs of each member's patches."""
    return {"batch_size": arm.training["batch_size"], "both": arm.conditional}


def _generators_of(name: str, arm: Any) -> tuple[str, ...]:
    """Names of what an arm gives to receivers."""
    return arm.generators if isinstance(arm, OneShotArm) else (name,) if isinstance(arm, GenerativeArm) else ()


def probe_key(kind: str, name: str, task: str) -> str:
    """Under what the survey answers which precision a model is computed in."""
    return f"{kind}/{name}/{task}"


def model_problems(scenario: Scenario) -> list[str]:
    """Models that cannot make or take images of a task's size, each as "key: what is wrong"; built without memory."""
    problems = []
    found: dict[str, str | None] = {}  # by settings: generators of a thousand centres are often alike

    def problem_of(spec: GeneratorSpec) -> str | None:
        key = spec.model_dump_json()
        if key not in found:
            try:
                spec.build(0)
                found[key] = None
            except ValueError as problem:
                found[key] = str(problem)
        return found[key]

    with shapes_only():
        for task in scenario.all_tasks:
            sources: dict[str, Generator | GenerativeArm] = {
                f"generators.{name}": generator for name, generator in scenario.generators.items()
                if generator.package is None and (generator.tasks is None or task.name in generator.tasks)
            }  # fmt: skip
            sources |= {f"arms.{name}": arm for name, arm in scenario.arms.items() if isinstance(arm, GenerativeArm)}
            for key, source in sources.items():
                spec = generator_spec_of(source, task)
                problem = problem_of(spec)
                if problem is None and isinstance(source, DmGANArm | MdGANArm) and source.sends_images:
                    problem = job_problem(spec, source.batches_per_job, source.transport)
                if problem is not None:
                    problems.append(f"{key}: {problem} (task {task.name!r})")
            for choice in scenario.study.classifiers:
                try:
                    classifier_spec_of(choice.model_copy(update={"pretrained": None}), task).build(0)
                except ValueError as problem:
                    problems.append(f"study.classifiers: {choice.model}: {problem} (task {task.name!r})")
    return list(dict.fromkeys(problems))


def file_problems(scenario: Scenario, data_here: bool = True) -> list[str]:
    """What is wrong with the files that a scenario names, each as "key: what is wrong and what would be right".

    Args:
        data_here: whether the centres' folders are to be on this machine; in a deployment they are in the hospitals.
    """
    problems = []
    shares_both = {
        name
        for arm in scenario.arms.values()
        if isinstance(arm, OneShotArm) and arm.settings(scenario.study).classes == "both"
        for name in arm.generators
    }
    for name, generator in scenario.generators.items():
        if generator.package is None:
            continue
        key = f"generators.{name}.package"
        try:
            spec = read_package(name, generator.package).spec
        except ValueError as problem:
            problems.append(f"{key}: {problem}; name a folder with card.json and generator.safetensors")
            continue
        if name in shares_both and not spec.conditional:
            problems.append(
                f"{key}: makes positives only, but an arm shares both classes of it; set classes: lesion there"
            )
        for task in scenario.all_tasks:
            wanted = generator.tasks is None or task.name in generator.tasks
            if wanted and (spec.image_size, spec.channels) != (task.image_size, task.channels):
                problems.append(
                    f"{key}: makes {spec.image_size} px x {spec.channels} images, but task {task.name!r} has "
                    f"{task.image_size} px x {task.channels}; name its tasks in generators.{name}.tasks, or change the task"
                )
    for choice in scenario.study.classifiers:
        for task in scenario.all_tasks if choice.pretrained else ():
            try:
                classifier_spec_of(choice, task).build(0)
            except ValueError as problem:
                problems.append(
                    f"study.classifiers: {choice.model}: {problem}; name another file in pretrained, or leave it out"
                )
    for name, centre in scenario.centres.items() if data_here else ():
        path = getattr(centre.data, "path", None)
        if path is not None and not Path(path).exists():
            dealt = scenario.partition is not None and name in scenario.partition.centres
            key = "partition.source.path" if dealt else f"centres.{name}.data.path"
            problems.append(f"{key}: no folder {path}; name the folder that holds the data")
    return list(dict.fromkeys(problems))


def generator_spec_of(generator: Generator | GenerativeArm, task: Task) -> GeneratorSpec:
    """What a generator of a scenario (or one that an arm trains) is built from, for one task."""
    return GeneratorSpec(
        model=str(generator.model),
        hyper_parameters=generator.hyper_parameters,
        training=GenerativeTraining.model_validate(generator.training),
        conditional=generator.conditional,
        image_size=task.image_size,
        channels=task.channels,
    )


def classifier_spec_of(choice: ClassifierChoice, task: Task) -> ClassifierSpec:
    """What a classifier of a scenario is built from, for one task."""
    return ClassifierSpec(
        model=choice.model,
        image_size=task.image_size,
        channels=task.channels,
        input_size=choice.image_size,
        pretrained=Path(choice.pretrained) if choice.pretrained else None,
    )


def file_digest(path: str | None) -> str | None:
    """SHA-256 of a file, None for no file."""
    return None if path is None else hashlib.sha256(Path(path).read_bytes()).hexdigest()


def read_package(name: str, folder: str | None) -> GeneratorPackage:
    """A generator package named in a scenario.

    Raises:
        PackageError: it is missing or altered.
    """
    return GeneratorPackage.read(Path(str(folder)))
