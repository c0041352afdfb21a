"""Identities and errors: what a centre knows and the server must not learn, and labels that mean nothing."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from clients import app as client_module
from federation.wire.job import Job
from reports.html import build_report
from strategies import KINDS

SECRET = "ZZPATIENT"


@pytest.fixture
def folder_of_images(tmp_path):
    """Function: a folder of 32 px images, bright squares (malignant) and dark ones; returns its path."""

    def write(name, permuted=False, patients=90):
        rng = np.random.default_rng(5)
        labels = np.arange(patients) % 2
        path = tmp_path / name
        path.mkdir()
        for k, label in enumerate(labels):
            pixels = rng.normal(90, 25, (32, 32))
            pixels[8:24, 8:24] += 60 * label
            Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path / f"{k}.png")
        written = rng.permutation(labels) if permuted else labels
        patient_ids = [f"{SECRET}{k:03d}" for k in range(patients)]
        images = [f"{k}.png" for k in range(patients)]
        pd.DataFrame({"image": images, "patient_id": patient_ids, "malignant": written}).to_csv(
            path / "metadata.csv", index=False
        )
        return path

    return write


def folder_study(tiny, path, *overrides):
    data = f"{{source: folder, path: {path}, background: none}}"
    return tiny(
        f"centres.A.data={data}", f"centres.B.data={data}", "centres.C.roles=[provider]",
        "task={label: malignancy, whole_image: true, image_size: 32}", "arms.pooled=null", "study.test_on=[]",
        "split={train: 0.4, val: 0.2, test: 0.4}", *overrides,
    )  # fmt: skip


def test_no_identity_is_in_any_message_or_in_the_servers_files(tiny, conduct_in_process, folder_of_images, tmp_path):
    messages = []

    def listen(message):
        content = message.content if message.has_content() else message.error.reason
        messages.append(repr(content))
        if message.has_content():
            messages.append(str(content.config_records["envelope"]["json"]))

    path = folder_of_images("site")
    # C is a phantom, whose task has lesions; it takes no part here.
    scenario = folder_study(
        tiny, path, "centres.C=null", "generators.c_flow=null", "arms.both=null", "arms.c_both=null"
    )
    done, record = conduct_in_process(scenario, tmp_path / "run", on_message=listen)
    assert done
    assert any("train_generator" in text for text in messages)
    assert not any(SECRET in text for text in messages)
    build_report(record)
    for file in record.folder.rglob("*"):
        if file.is_file() and "centres" not in file.relative_to(record.folder).parts:
            assert SECRET.encode() not in file.read_bytes(), file


def test_an_exception_that_names_a_patient_stays_at_the_centre(tiny, conduct_in_process, tmp_path, monkeypatch):
    def fail(here, body, arrays):
        raise RuntimeError(f"cannot read image of {SECRET}007")

    monkeypatch.setitem(KINDS._now(), "train_generator", replace(KINDS["train_generator"], work=fail))
    messages = []
    done, record = conduct_in_process(tiny(), tmp_path / "run", on_message=lambda m: messages.append(repr(m.__dict__)))
    assert not done
    failed = [e for e in record.events() if e["event"] == "unit_failed"]
    assert failed and all("own log" in e["text"] for e in failed)
    assert not any(SECRET in text for text in messages)
    for file in record.folder.rglob("*"):
        if file.is_file() and "centres" not in file.relative_to(record.folder).parts:
            assert SECRET.encode() not in file.read_bytes(), file
    assert f"{SECRET}007" in (record.folder / "centres" / "B" / "node.log").read_text(), "where the centre can find it"


@pytest.mark.parametrize(("permuted", "low", "high"), [(False, 0.9, 1.0), (True, 0.3, 0.7)])
def test_permuted_labels_give_chance(permuted, low, high, tiny, conduct_in_process, folder_of_images, tmp_path):
    path = folder_of_images("site", permuted, patients=400)
    scenario = folder_study(
        tiny, path, "centres.C=null", "generators={}", "generators.b_gan={centre: B, model: dcgan, width: 8, steps: 2, batch_size: 4}",
        "arms={real: {strategy: local}}", "study.schedule.real=60",
    )  # fmt: skip
    done, record = conduct_in_process(scenario, tmp_path / "run")
    assert done
    auroc = record.results().query("metric == 'auroc'")["value"].mean()
    assert low <= auroc <= high


def test_a_lost_pool_is_sent_again_on_resume(tiny, conduct_in_process, tmp_path):
    import shutil

    done, record = conduct_in_process(tiny(), tmp_path / "run")
    assert done
    before = (record.folder / "results.csv").read_bytes()
    shutil.rmtree(record.folder / "centres" / "A" / "pools")
    for info in record.units():
        if info["kind"] == "learn_classifier" and info["result"]["cell"]["arm"] == "b_gan":
            record.forget_unit(info["unit"])
    done, record = conduct_in_process(tiny(), tmp_path / "run", resume=True)
    assert not done
    assert any("no longer holds an input" in e.get("text", "") for e in record.events())
    done, record = conduct_in_process(tiny(), tmp_path / "run", resume=True)
    assert done and (record.folder / "results.csv").read_bytes() == before


def test_a_client_with_other_code_is_refused(tmp_path):
    job = Job("s", "u", "A", "survey_data", {}, code="0000", place={"out": str(tmp_path), "cache": str(tmp_path)})
    assert client_module.answer(job, {"partition-id": 0}).code == "code_mismatch"


# -- federations ---------------------------------------------------------------------------------------------

ARMS = (
    "arms.average.transport=int8",
    "arms.average.alone=true",
    "arms.remote.lock_step=true",
    "arms.weights={strategy: dm_gan, model: wgan_gp, width: 4, critic_steps: 2, batch_size: 4, updates: 3, batches_per_job: 2,"
    " lock_step: true, exchange: generator, transport: fp16, fidelity: {images: 16, every: 3, fewest_patients: 2}}",
    "arms.swapped={strategy: md_gan, model: dcgan, conditional: true, width: 4, batch_size: 4, updates: 5, batches_per_job: 1,"
    " swap_every: 2, transport: int8, fidelity: {images: 16, every: 5, fewest_patients: 2}}",
)


@pytest.fixture(scope="module")
def overheard(federated, conduct_in_process, tmp_path_factory):
    """(job or reply as JSON, arrays) of every message of a run of all strategies, job of each, and the record."""
    heard, jobs = [], {}

    def listen(message):
        envelope = json.loads(str(message.content.config_records["envelope"]["json"]))
        arrays = {name: array.numpy() for name, array in message.content.array_records["arrays"].items()}
        if message.metadata.reply_to_message_id:
            heard.append(("up", jobs[envelope["unit"]], arrays))
        else:
            jobs[envelope["unit"]] = envelope
            heard.append(("down", envelope, arrays))

    done, record = conduct_in_process(federated(*ARMS), tmp_path_factory.mktemp("heard") / "run", on_message=listen)
    assert done
    return heard, record


def of_arm(heard, arm, kind="train_discriminator"):
    return [(way, job, a) for way, job, a in heard if job["kind"] == kind and job["label"].startswith(arm)]


def test_no_message_of_a_federation_holds_a_patch(overheard, patch_cache, patches_of, leaks):
    heard, _ = overheard
    patches = patches_of(patch_cache)
    arrays = [array for _, _, named in heard for array in named.values()]
    assert len(arrays) > 1000 and not leaks(arrays, patches)
    # The detector sees a patch that travels as the generated images do, among others.
    patch = np.frombuffer(sorted(patches)[9], np.uint8).reshape(1, 32, 32).astype(np.float32) / 127.5 - 1
    batch = next(a["fake.generator"] for way, _, a in of_arm(heard, "remote") if way == "down").copy()
    batch[0, 2] = patch
    assert leaks([batch], patches)


def test_a_discriminator_never_leaves_its_centre_unless_it_changes_places(overheard, federated):
    from models.federated_parts import averaged_state
    from models.generator_spec import GeneratorSpec
    from scenarios.plan import Plan

    heard, _ = overheard
    plan = Plan(federated(*ARMS))
    for arm, exchanged in (("remote", {"fake", "gradient"}), ("weights", {"generator", "gradient", "scale"})):
        sent = of_arm(heard, arm)
        networks = GeneratorSpec.model_validate(plan.generator_spec(arm, "lesion")).build(0).networks
        own = {t.shape for t in averaged_state(networks["discriminator"]).values() if t.dim() == 4}
        assert sent and {name.split(".")[0] for _, _, arrays in sent for name in arrays} == exchanged
        shapes = {array.shape for _, _, arrays in sent for array in arrays.values()}
        assert not shapes & (own - {t.shape for t in networks["generator"].parameters()})
    swapped = of_arm(heard, "swapped")
    ways = Counter(way for way, _, arrays in swapped if any(name.startswith("discriminator.") for name in arrays))
    assert ways == {"up": 4, "down": 4}, "after updates 2 and 4, to and from both"


def test_messages_and_bytes_are_those_that_were_predicted(overheard):
    heard, record = overheard
    measured = Counter()
    for way, job, arrays in heard:
        measured[job["centre"], job["kind"], way] += sum(array.nbytes for array in arrays.values())
        measured[job["centre"], job["kind"], "messages"] += way == "down"
    checked = set()
    for row in record.expected():
        key = (row["centre"], row["kind"])
        assert measured[(*key, "messages")] == row["messages"], key
        for way in ("down", "up"):
            expected = row[f"bytes_{way}"]
            assert measured[(*key, way)] == pytest.approx(expected, rel=0.05, abs=64), (*key, way)
            checked.add((row["kind"], way, bool(expected)))
    assert {kind for kind, _, there in checked if there} >= {
        "train_round", "train_discriminator", "feature_sums", "measure_generator", "synthesise",
    }  # fmt: skip
    assert {key[:2] for key in measured} == {(row["centre"], row["kind"]) for row in record.expected()}
