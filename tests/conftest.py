"""A study small enough for tests, and the in-process engine to run it."""

import importlib
import os
import shutil
import sys
import venv
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

# How long an example takes is measured in bench/, and no test fails for it.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

CHECKOUT = Path(__file__).resolve().parent.parent

# Folders that tests make are a node's workspace now and then, which must not be open to others.
os.umask(0o077)

TINY = """
name: tiny
seed: 1
repeats: 2
centres:
  A: {roles: [receiver], data: {source: phantom, patients: 24, scanner: digital}}
  B: {roles: [provider], data: {source: phantom, patients: 24, scanner: film}}
  C: {roles: [provider, test], data: {source: phantom, patients: 24, scanner: digital-2}}
task: {name: lesion, label: lesion, image_size: 32, margin_mm: 4.2, crops: 2}
generators:
  b_gan: {centre: B, model: dcgan, width: 8, steps: 3, batch_size: 4}
  c_flow: {centre: C, model: flow_matching, conditional: true, widths: [32], sampling_steps: 2, steps: 3, batch_size: 4}
arms:
  real: {strategy: local}
  b_gan: {strategy: one_shot, generators: [b_gan]}
  both: {strategy: one_shot, generators: [b_gan, c_flow], use: pretrain_mix}
  c_both: {strategy: one_shot, generators: [c_flow], classes: both, use: pretrain}
  pooled: {strategy: pooled, centres: [B]}
  again: {strategy: local, oversample: 8, control: true}
study:
  classifiers: [cnn_small]
  synthetic: 8
  test_on: [A, C]
  minimum_positives: 2
  schedule: {real: 4, mix: 4, pretrain: 4, fine_tune: 4}
  training: {validate_every: 2, batch_size: 8}
compute: {workers: 2, threads_per_job: 1, precision: fp32}
"""


FEDERATED = """
name: federated
seed: 4
repeats: 1
centres:
  A: {roles: [receiver], data: {source: phantom, patients: 24, scanner: digital}}
  B: {roles: [provider], data: {source: phantom, patients: 24, scanner: film}}
  C: {roles: [provider], data: {source: phantom, patients: 24, scanner: digital-2}}
task: {name: lesion, label: lesion, image_size: 32, margin_mm: 4.2, crops: 2}
arms:
  real: {strategy: local}
  average:
    {strategy: fedavg_gan, model: dcgan, width: 4, batch_size: 4, rounds: 4, local_steps: 2, ema: 0.9,
     fidelity: {images: 16, every: 2, fewest_patients: 2}}
  ring:
    {strategy: cyclic, model: wgan_gp, width: 4, critic_steps: 1, batch_size: 4, rounds: 4, local_steps: 2,
     fidelity: {images: 16, every: 3, fewest_patients: 2}}
  remote:
    {strategy: dm_gan, model: dcgan, width: 4, batch_size: 4, updates: 10, batches_per_job: 1,
     fidelity: {images: 16, every: 4, fewest_patients: 2}}
study:
  classifiers: [cnn_small]
  synthetic: 8
  minimum_positives: 2
  schedule: {real: 2, mix: 2}
  training: {validate_every: 2, batch_size: 8}
clock: {step_s: 1, notice_s: 3}
compute: {workers: 2, threads_per_job: 1, precision: fp32}
"""
# Three jobs of ten are lost, and one centre goes for good.
FAULTS = (
    "centres.B.availability={dropout: 0.3}",
    "centres.C.availability={dropout: 0.3, delay_s: 0.5, outages: [{from_s: 9}]}",
)


@pytest.fixture(scope="session")
def patch_cache(tmp_path_factory):
    """Patches are made once for the whole session."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def flowers_bundle(tmp_path_factory):
    """The bundle that Flower makes from this checkout; from a copy, for Flower looks through a virtual environment, too."""
    from flwr.cli.build import build_fab_from_disk

    copy = tmp_path_factory.mktemp("bundle") / CHECKOUT.name
    shutil.copytree(CHECKOUT, copy, ignore=shutil.ignore_patterns(".git", ".venv", "runs", "tests", "__pycache__"))
    return build_fab_from_disk(copy)


@pytest.fixture(scope="session")
def tiny_text():
    """YAML of the tiny scenario."""
    return TINY


@pytest.fixture(scope="session")
def tiny():
    """Function: the tiny scenario, with "key=value" overrides."""
    from scenarios.reader import parse

    return lambda *overrides: parse(TINY, source="tiny.yaml", base=CHECKOUT, overrides=list(overrides))


@pytest.fixture(scope="session")
def federated():
    """Function: a scenario with three kinds of federations over two providers, with "key=value" overrides.

    With `faults` three jobs of ten are lost and centre C goes for good.
    """
    from scenarios.reader import parse

    def scenario(*overrides, faults=False):
        changes = [*(FAULTS if faults else ()), *overrides]
        return parse(FEDERATED, source="federated.yaml", base=CHECKOUT, overrides=changes)

    return scenario


@pytest.fixture(scope="session")
def conduct_in_process(patch_cache):
    """Function: run a scenario with the in-process engine into a folder; returns (succeeded, record)."""
    from clients.app import app as client_app
    from federation.flower.in_process import InProcessGrid
    from reports.run_record import RunRecord
    from scenarios.reader import resolved_yaml
    from server.app import begin, conduct

    def run(scenario, folder, *, resume=False, **grid_options):
        record = RunRecord.open(folder) if resume else RunRecord.create(folder, resolved_yaml(scenario), {})
        if resume:
            record.write_scenario(resolved_yaml(scenario))
        begin(record)
        grid = InProcessGrid(client_app, len(scenario.centres), {}, **grid_options)
        return conduct(grid, record, patch_cache), record

    return run


@pytest.fixture(scope="session")
def real_images():
    """Folder with real image sets; tests that need it skip without it."""
    folder = Path(os.environ.get("POLYCENTRE_TEST_DATA", CHECKOUT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real images at {folder}; set POLYCENTRE_TEST_DATA to the folder that holds them")
    return folder


# -- what must not travel -----------------------------------------------------------------------------------


def _patches_of(cache):
    """All patches that the centres made, as sets of bytes."""
    found = set()
    for file in cache.rglob("pixels.npy"):
        pixels = np.load(file)
        if pixels.dtype == np.uint8:  # what is looked for is bytes
            found |= {patch.tobytes() for patch in pixels}
    return found


ALIKE = 0.99  # correlation of an image and a patch; int8 rounding keeps more of any patch that shows something
_BLOCKS = 16


def _standardised(images):
    """float32 (n, pixels) of mean 0 and standard deviation 1, without the images that are flat or not finite."""
    images = images.astype(np.float32)
    images = images[np.isfinite(images).all(axis=1)]
    images = images - images.mean(axis=1, keepdims=True)
    deviation = np.sqrt(np.square(images).mean(axis=1, keepdims=True))
    shown = deviation[:, 0] > 0
    return images[shown] / deviation[shown]


def _profiles(standardised):
    """Block means of the sorted pixels, the same for an image however it is turned.

    Two images whose correlation is at least r differ by at most sqrt(2 (1 - r)) here, root mean square: sorting both
    brings them closer, and so does averaging. So no leak is lost where profiles are compared first.
    """
    starts = np.linspace(0, standardised.shape[1], _BLOCKS, endpoint=False).astype(int)
    lengths = np.diff([*starts, standardised.shape[1]])
    return np.add.reduceat(np.sort(standardised, axis=1), starts, axis=1) / lengths


@lru_cache(maxsize=4)
def _known(patches):
    """(patches standardised, a tree of their profiles) of a frozenset of patches; a file at a time asks for the same ones."""
    from scipy.spatial import cKDTree

    known = _standardised(np.stack([np.frombuffer(patch, np.uint8) for patch in sorted(patches)]))
    return known, cKDTree(_profiles(known))


def _leaks(payloads, patches):
    """Whether any array holds a centre's patch, in any shape and dtype, turned or mirrored.

    An image that correlates with a patch at ALIKE or above is that patch, however its grey values were scaled, shifted or
    rounded: floats in [-1, 1] or [0, 1], int8 (by steps of each image or by subtraction), 16 or 32 bits. Patches that show
    nothing but noise of a few grey levels do not survive rounding to int8, and are only found otherwise.
    """
    size = len(next(iter(patches)))
    side = int(np.sqrt(size))
    assert side * side == size, "patches of one channel"
    known, tree = _known(frozenset(patches))
    radius = np.sqrt(2 * (1 - ALIKE) * _BLOCKS)
    for array in payloads:
        if array.size == 0 or array.size % size or array.dtype.kind not in "iuf":
            continue
        images = _standardised(array.reshape(-1, size))
        if not len(images):
            continue
        candidates = tree.query_ball_point(_profiles(images), radius)
        for image, near in zip(images, candidates, strict=True):
            if not near:
                continue
            square = image.reshape(side, side)
            turned = [np.rot90(form, k).ravel() for form in (square, square.T) for k in range(4)]
            if (known[near] @ np.stack(turned).T).max() / size >= ALIKE:
                return True
    return False


@pytest.fixture(scope="session")
def patches_of():
    """Function: all patches that centres made into a cache, as sets of bytes."""
    return _patches_of


@pytest.fixture(scope="session")
def leaks():
    """Function: whether any array holds one of the patches; see `_leaks`."""
    return _leaks


# -- nodes with a centre.yaml -----------------------------------------------------------------------------------

EVERY_STRATEGY = ("local", "one_shot", "fedavg_gan", "cyclic", "dm_gan", "md_gan", "fedavg_classifier")


@pytest.fixture(scope="session")
def centre_file(tmp_path_factory):
    """Function: write a centre.yaml with a key and a certificate beside it; returns its path.

    Settings are given as a mapping, which is merged into what every file needs, and into what a trial of the small scenarios
    needs: their data, every strategy, and low minimums. A setting of `None` is left out. Centres A to E know each other's keys.
    """
    import yaml

    from clients.centre_file import TRIAL_MINIMUMS
    from federation.flower.certificates import create_node_key

    keys = tmp_path_factory.mktemp("keys")
    for name in "ABCDE":
        create_node_key(keys / name)

    def write(folder, centre="B", **settings):
        folder.mkdir(parents=True, exist_ok=True)
        key = folder / "node.key"
        shutil.copy(keys / (centre if centre in "ABCDE" else "E"), key)
        (folder / "ca.crt").write_text("-----BEGIN CERTIFICATE-----\n")
        tree = {
            "centre": centre, "superlink": "localhost:8000", "root_certificate": "ca.crt", "key": "node.key",
            "workspace": "workspace", "members": {name: (keys / f"{name}.pub").read_text() for name in "ABCDE"},
            "data": {"source": "phantom", "patients": 24, "scanner": {"A": "digital", "C": "digital-2"}.get(centre, "film")},
            "minimums": TRIAL_MINIMUMS.model_dump(mode="json"), "release": {},
        }  # fmt: skip
        tree |= settings
        if tree["release"] is not None:
            tree["release"] = {"strategies": list(EVERY_STRATEGY), "plain_updates": True} | tree["release"]
        tree = {key: value for key, value in tree.items() if value is not None}
        (folder / "centre.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
        return folder / "centre.yaml"

    return write


# -- an environment of its own ----------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def make_environment():
    """Function: a virtual environment in a folder, with what this one has installed and with the project of a checkout.

    Returns its folder of installed packages, to which a test may add more.
    """

    def make(folder, checkout=CHECKOUT):
        venv.create(folder, symlinks=True)
        installed = Path(pytest.__file__).parents[1]
        (site,) = folder.glob("lib/python*/site-packages")
        # Files that make this checkout importable are not read from a folder that is only named.
        (site / "project.pth").write_text(f"{checkout}\n{installed}\n")
        python = folder / "bin" / "python"
        for script in Path(sys.executable).parent.iterdir():
            text = script.read_bytes()[:4096] if script.is_file() else b""
            first, _, _ = text.partition(b"\n")
            if text.startswith(b"#!") and b"python" in first and not (python.parent / script.name).exists():
                _, _, rest = script.read_bytes().partition(b"\n")
                (python.parent / script.name).write_bytes(b"#!%s\n%s" % (str(python).encode(), rest))
                (python.parent / script.name).chmod(0o755)
        return site

    return make


# -- plug-ins ---------------------------------------------------------------------------------------------------

PLUGIN = "class Thing:\n    name = 'thing'\n\nITEM = 7\n"


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder of installed packages that Python searches."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    return folder


@pytest.fixture
def install(site, monkeypatch):
    """Function: an installed distribution that is one package; its entry points as {group: {name: value}}.

    The package has the module `things`, with the given text.
    """
    from basics.plugins import installed
    from scenarios.plugins import TABLES

    for table in TABLES.values():  # what this test loads is not there in the next one
        monkeypatch.setattr(table, "loaded", {})
    packages = []

    def make(name, points, version="1.0", text=PLUGIN, record=True, files=()):
        package = name.replace("-", "_")
        packages.append(package)
        (site / package).mkdir(exist_ok=True)
        (site / package / "__init__.py").write_text("")
        (site / package / "things.py").write_text(text)
        info = site / f"{package}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        lines = [
            f"[polycentre.{group}]\n" + "".join(f"{n} = {v}\n" for n, v in of.items()) for group, of in points.items()
        ]
        (info / "entry_points.txt").write_text("\n".join(lines))
        (info / "top_level.txt").write_text(f"{package}\n")
        recorded = [f"{package}/__init__.py,,", f"{package}/things.py,,", f"{info.name}/METADATA,,", *files]
        (info / "RECORD").write_text("\n".join(recorded if record else []))
        importlib.invalidate_caches()
        return next(plugin for plugin in installed() if plugin.name == name)

    yield make
    for module in [m for m in sys.modules if m.partition(".")[0] in packages]:
        del sys.modules[module]
