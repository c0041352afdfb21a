"""A laboratory for federations: the centres' real halves on invented patches, in this process, without Flower's messages."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from clients import app as client_app
from data_partitions import PatchTask, SplitRule
from data_partitions.patch_dataset import COLUMNS, PatchDataset
from federation.wire.availability import Availability
from federation.wire.centres import Centres
from federation.wire.clock import VirtualClock
from federation.wire.errors import EnvelopeError
from federation.wire.exchange import run_together
from federation.wire.job import Reply
from federation.wire.units import Units
from models import GeneratorSpec
from server.checkpoint import checked
from strategies.ask import Ask, anything
from strategies.bodies import Compute
from strategies.centre_side import as_arrays
from strategies.dm_gan.local import DISCRIMINATE
from strategies.dm_gan.server import RemoteTraining
from strategies.dm_gan.settings import DmGANPlan
from strategies.fedavg_gan.local import TRAIN_ROUND, LocalRules
from strategies.fedavg_gan.server import FederatedTraining, Federation
from strategies.fidelity import FEATURE_SUMS, MEASURE
from strategies.fidelity_plan import Fidelity
from strategies.keys import FidelityChoice
from strategies.members import Member, round_ask

SIZE = 32
# What every job says of a centre's data; in the laboratory the patches are those of `dataset` all the same.
OWN_DATA = {"data": {"source": "phantom"}, "split": SplitRule(), "data_seed": 1,
            "task": PatchTask(name="task", image_size=SIZE)}  # fmt: skip
COMPUTE = Compute(device="cpu", threads=1, precision="fp32")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """One thread promises equal bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def dataset(patients: int, seed: int) -> PatchDataset:
    """One positive and one negative training patch of each patient, noise around another mean."""
    rng = np.random.default_rng(seed)
    rows = [
        {
            "label": label, "box": 2 * patient + label, "crop": 0, "patient": patient, "image": patient, "split": "train",
            "lesion_type": "mass", "view": "CC", "laterality": "L", "density": "b", "age": 50.0, "birads": "4a",
            "malignant": np.nan, "spacing_mm": 0.2, "scanner": "digital", "width": 60, "background": 0.0,
        }
        for patient in range(patients) for label in (0, 1)
    ]  # fmt: skip
    noise = rng.normal(90 + 60 * seed, 30, (len(rows), 1, SIZE, SIZE))
    pixels = np.clip(noise, 0, 255).astype(np.uint8)
    return PatchDataset(
        pixels, pd.DataFrame(rows, columns=list(COLUMNS)), np.arange(len(rows)), {}, ("healthy", "lesion")
    )


class LabCentres(Centres):
    """Does jobs one after the other by the centres' real halves; keeps progress, and what was sent.

    Attributes:
        spoil: (job, reply) -> the reply that arrives, or None for the centre's own.
        stop_after: jobs after which the server is "killed".
    """

    def __init__(self, datasets, folder, spoil=lambda job, reply: None, stop_after=None):
        self.names = list(datasets)
        self.place = {"out": str(folder), "cache": str(folder)}
        self.spoil, self.stop_after = spoil, stop_after
        self.jobs, self.replies, self.queue = [], [], []
        self.progress = {}

    def send(self, job):
        job.to_record()  # what cannot travel is a mistake of the server
        self.queue.append(replace(job, place=self.place))

    def receive(self, timeout_s=None):
        if not self.queue:
            return None
        job = self.queue.pop(0)
        if len(self.jobs) == self.stop_after:
            raise KeyboardInterrupt
        self.jobs.append(job)
        reply = client_app.answer(job, {"partition-id": 0})
        spoilt = self.spoil(job, reply)
        try:
            reply = checked(job, Reply.from_record((spoilt or reply).to_record(), job))
        except EnvelopeError as problem:
            reply = Reply.error(job, problem.code)
        self.replies.append(reply)
        return reply

    def cancel(self, units):
        units = set(units)
        self.queue = [job for job in self.queue if job.unit not in units]

    def save_progress(self, key, info, arrays):
        self.progress[key] = (json.loads(json.dumps(info)), {name: np.array(array) for name, array in arrays.items()})

    def load_progress(self, key):
        return self.progress.get(key)

    def sent(self, kind):
        return [job for job in self.jobs if job.kind == kind]


class Lab:
    """Centres with so many patients each, and federations over them."""

    def __init__(self, patients, folder, monkeypatch):
        self.datasets = {name: dataset(n, seed) for seed, (name, n) in enumerate(patients.items())}
        self.folder = folder
        load = lambda node, body, task, progress=None: self.datasets[node.centre]  # noqa: E731
        monkeypatch.setattr("clients.side.load_patches", load)
        self.units = Units("study", "", {}, {})

    def centres(self, name="run", **options):
        (self.folder / name).mkdir(exist_ok=True)
        return LabCentres(self.datasets, self.folder / name, **options)

    def spec(self, model="dcgan", conditional=False, more=None, **training):
        hyper = {"widths": [32], "sampling_steps": 2} if model == "flow_matching" else {"width": 4, "latent": 8}
        if model == "wgan_gp":
            hyper |= {"critic_steps": 2}
        if model == "stylegan2_ada":
            # The server steps a generator by one phase in every step.
            hyper = {
                "channel_base": 128,
                "channel_max": 8,
                "latent": 8,
                "style_dim": 8,
                "path_length": 0.0,
                "r1_gamma": 0.0,
            }
            hyper |= {"ada_target": -1.0, "ada_kimg": 0.05}
        if model == "stylegan2_ada":
            training = {"ema_images": None, "ema_ramp": None} | training
        hyper |= more or {}
        training = {"steps": 12, "batch_size": 4, "ema": 0.9} | training
        values = {
            "model": model,
            "image_size": SIZE,
            "classes": ["healthy", "lesion"],
            "conditional": conditional,
            "hyper_parameters": hyper,
        }
        return GeneratorSpec.model_validate(values | {"training": training})

    def patches(self, centre, conditional=False):
        return as_arrays(self.datasets[centre] if conditional else self.datasets[centre].select(labels=(1,)))

    def fixed(self, spec):
        """By centre, what every job of a member says."""
        common = OWN_DATA | {"generator": spec, "build_seed": 5, "compute": COMPUTE}
        return {centre: common | {"seed": 100 + i} for i, centre in enumerate(self.datasets)}

    def in_rounds(self, spec, settings, rules):
        more = {"rules": rules, "pools": ()}
        return tuple(
            Member(round_ask(TRAIN_ROUND, "fedavg_gan", centre, "task", settings, fixed | more))
            for centre, fixed in self.fixed(spec).items()
        )

    def remote(self, spec, settings, strategy):
        more = {"exchange": settings.exchange, "gradients": settings.gradients, "transport": settings.transport,
                "swap_every": settings.swap_every}  # fmt: skip
        free = dict.fromkeys(
            (
                "federation",
                "state_unit",
                "fresh",
                "version",
                "from_step",
                "batches",
                "labels",
                "introduce",
                "send_discriminator",
                "discriminator_of",
                "signature",
            ),
            anything,
        )
        return tuple(
            Member(Ask(DISCRIMINATE, strategy, centre, "task", fixed | more, free))
            for centre, fixed in self.fixed(spec).items()
        )

    def fidelity(self, spec, spaces=(), every=1, images=16):
        at = next(iter(self.datasets))
        choice = FidelityChoice(every=every, images=images, spaces=spaces)
        halves = OWN_DATA | {"labels": spec.labels, "spaces": choice.spaces, "fewest_patients": 2}
        fixed = {
            "generator": spec,
            "seed": 2,
            "compute": COMPUTE,
            "images": images,
            "labels": spec.labels,
            "spaces": choice.spaces,
        }
        on_the_way, last = (Ask(MEASURE, "x", at, None, fixed | {"preview": preview}) for preview in (False, True))
        sums = tuple(Ask(FEATURE_SUMS, "x", centre, "task", halves) for centre in self.datasets)
        return Fidelity("task", choice, sums, (on_the_way, last))

    def clock(self, availability=None, seed=3):
        centres = {c: (availability or {}).get(c, Availability()) for c in self.datasets}
        return VirtualClock(centres, seed=seed, purpose="p", notice_s=5)

    def fedavg(self, spec, settings, rules=None, aggregation="FedAvg", options=None, clock=None, **more):
        rules = rules or LocalRules()
        federation = Federation(
            arm="arm", task="task", strategy="fedavg_gan", series="federation", spec=spec, build_seed=5,
            members=self.in_rounds(spec, settings, rules), settings=settings, rules=rules, aggregation=aggregation,
            options=options or {}, fidelity=self.fidelity(spec), **more,
        )  # fmt: skip
        return FederatedTraining(self.units, federation, clock or self.clock())

    def dm_gan(self, spec, settings, clock=None, strategy="dm_gan"):
        plan = DmGANPlan(
            arm="arm", task="task", strategy=strategy, spec=spec, build_seed=5,
            members=self.remote(spec, settings, strategy), settings=settings, fidelity=self.fidelity(spec),
        )  # fmt: skip
        return RemoteTraining(self.units, plan, clock or self.clock())


@pytest.fixture(scope="session")
def own_data():
    """Keys of `strategies.bodies.OfTask`."""
    return OWN_DATA


@pytest.fixture(scope="session")
def compute():
    """One thread of this processor."""
    return COMPUTE


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """Function: a laboratory with so many patients at each centre."""
    return lambda **patients: Lab(patients or {"A": 20}, tmp_path, monkeypatch)


@pytest.fixture(scope="session")
def share():
    """Function: run exchanges side by side over centres; their `Shared` in order."""
    return lambda centres, *strategies: list(
        run_together(centres, {n: s.share(centres) for n, s in enumerate(strategies)}).values()
    )


@pytest.fixture(scope="session")
def same_arrays():
    """Function: assert that two sets of arrays are equal, bit for bit or within a tolerance."""

    def check(a, b, within=0.0):
        assert a.keys() == b.keys()
        for name in a:
            difference = np.abs(np.asarray(a[name], np.float64) - np.asarray(b[name], np.float64)).max(initial=0)
            assert difference <= within, f"{name} differs by {difference:.3g}"

    return check


@pytest.fixture(scope="session")
def split_patches():
    """Function: patches of so many patients, one of each label, a third of the patients in each split.

    Positives have a bright spot `contrast` grey levels above their noise, so that a classifier can learn them.
    """

    def make(patients, seed, contrast=60):
        patches = dataset(patients, seed)
        table = patches.full_table.assign(
            split=[("train", "val", "test")[p % 3] for p in patches.full_table["patient"]]
        )
        pixels = patches.pixels.astype(np.int64)
        pixels[patches.labels == 1, :, 8:24, 8:24] += contrast
        return replace(patches, pixels=np.clip(pixels, 0, 255).astype(np.uint8), full_table=table)

    return make
