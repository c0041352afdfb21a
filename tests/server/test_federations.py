"""Federations within a study: with faults, interrupted anywhere, with states lost and answers that cannot be trusted."""

import json
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from flwr.app import Array, ArrayRecord, Message, RecordDict

from federation.wire.job import Job, Reply
from reports.run_record import RunRecord
from scenarios.reader import resolved_yaml

BYTES = ("results.csv", "convergence.csv", "virtual_time.csv", "predictions.csv", "federations.json")
FEDERATED_KINDS = ("train_round", "train_discriminator")
CHECKOUT = Path(__file__).resolve().parents[2]


class Centre:
    """The `fault` hook of the in-process engine: counts what centres compute, interrupts, and lets a test interfere.

    Args:
        stop_at: message at which the server is interrupted.
        interfere: job -> a message that takes the place of the centre's, or None.
    """

    def __init__(self, stop_at=None, interfere=lambda job, message: None):
        self.stop_at, self.interfere = stop_at, interfere
        self.seen = 0
        self.computed = Counter()
        self.kinds = Counter()

    def __call__(self, message):
        self.seen += 1
        if self.seen == self.stop_at:
            raise KeyboardInterrupt
        job = Job.from_record(message.content)
        instead = self.interfere(job, message)
        if instead is None:
            self.kinds[job.kind] += 1
            if job.kind != "survey_data":
                self.computed[job.unit] += 1
        return instead


def bytes_of(record):
    return {name: (record.folder / name).read_bytes() for name in BYTES}


def entries(record):
    return {entry["arm"]: entry for entry in json.loads((record.folder / "federations.json").read_text())}


def news(record):
    return [e for e in record.events() if e["event"] in ("note", "unit_failed", "run_finished")]


@pytest.fixture(scope="module")
def faulty(federated, conduct_in_process, tmp_path_factory):
    """A finished run in which jobs were lost and a centre went for good, and the number of its messages."""
    centre = Centre()
    done, record = conduct_in_process(federated(faults=True), tmp_path_factory.mktemp("faulty") / "run", fault=centre)
    assert done, news(record)
    return record, centre


def test_a_run_with_faults_completes_and_says_what_happened(faulty):
    record, centre = faulty
    found = entries(record)
    assert set(found) == {"average", "ring", "remote"}
    assert sum(entry["lost"] for entry in found.values()) >= 4
    for arm in ("average", "remote"):
        assert [gone["centre"] for gone in found[arm]["gone"]] == ["C"] and found[arm]["gone"][0]["from_s"] >= 9
    assert (found["average"]["rounds_or_updates"], found["remote"]["rounds_or_updates"]) == (4, 10)
    times = pd.read_csv(record.folder / "virtual_time.csv")
    assert {"used", "lost", "outage"} <= set(times["outcome"])
    by_arm = times.groupby("arm")["outcome"].value_counts().unstack(fill_value=0)
    for arm, entry in found.items():
        assert by_arm.loc[arm, "used"] == entry["used"] and by_arm.loc[arm].sum() == entry["jobs"] - under_way(entry)
    assert not times[(times["centre"] == "C") & (times["finished_s"] > 20)].size, "it is not asked for ever"
    assert centre.kinds["train_round"] == found["average"]["used"] + found["ring"]["used"], "a lost job is not computed"
    convergence = pd.read_csv(record.folder / "convergence.csv")
    assert set(convergence["arm"]) == set(found) and np.isfinite(convergence["value"]).all()
    assert set(record.results()["arm"]) == {"real", *found}


def under_way(entry):
    """Answers that an asynchronous training did not wait for in the end."""
    return entry["jobs"] - sum(entry[key] for key in ("used", "lost", "late", "stale"))


def test_another_seed_loses_other_jobs(faulty, federated, conduct_in_process, tmp_path):
    _, other = conduct_in_process(
        federated("seed=5", "arms.average=null", "arms.ring=null", faults=True), tmp_path / "run"
    )
    times = [pd.read_csv(record.folder / "virtual_time.csv") for record in (faulty[0], other)]
    first, second = (table[table["arm"] == "remote"].reset_index(drop=True) for table in times)
    assert len(second) > 5 and not first.equals(second)


@pytest.mark.parametrize("offset", [0, pytest.param(4, marks=pytest.mark.slow)])
def test_a_run_interrupted_many_times_goes_on_to_the_same_bytes(
    offset, faulty, federated, conduct_in_process, tmp_path
):
    """Each session works on for some messages and is interrupted; nothing is computed twice.

    That the bytes are those of another run shows, too, that a run is reproducible.
    """
    record, whole = faulty
    computed, kinds, sessions, done = Counter(), Counter(), 0, False
    share_phase = sum(
        n for kind, n in whole.kinds.items() if kind not in ("survey_data", "learn_classifier", "test_classifier")
    )
    while not done:
        # Three surveys of every session, and about a seventh of the run.
        centre = Centre(stop_at=4 + share_phase // 7 + (offset if sessions == 0 else 0))
        try:
            done, again = conduct_in_process(
                federated(faults=True), tmp_path / "run", resume=sessions > 0, fault=centre
            )
            assert done, news(again)
        except KeyboardInterrupt:
            sessions += 1
        computed, kinds = computed + centre.computed, kinds + centre.kinds
    assert sessions >= 5
    assert bytes_of(again) == bytes_of(record)
    assert not {unit: n for unit, n in computed.items() if n > 1}, "finished work was done again"
    assert {kind: n for kind, n in kinds.items() if kind != "survey_data"} == {
        kind: n for kind, n in whole.kinds.items() if kind != "survey_data"
    }


def test_resuming_a_finished_run_computes_nothing(faulty, federated, conduct_in_process, tmp_path):
    shutil.copytree(faulty[0].folder, tmp_path / "run")
    centre = Centre()
    done, record = conduct_in_process(federated(faults=True), tmp_path / "run", resume=True, fault=centre)
    assert done and not centre.computed and bytes_of(record) == bytes_of(faulty[0])


# -- lost states ---------------------------------------------------------------------------------------------


def test_a_centre_that_lost_its_states_between_two_sessions_begins_anew(federated, conduct_in_process, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        conduct_in_process(federated(), tmp_path / "run", fault=Centre(stop_at=22))
    states = tmp_path / "run" / "centres" / "B" / "states"
    assert list(states.glob("*/*.safetensors")), "there must be something to lose"
    shutil.rmtree(states)
    done, record = conduct_in_process(federated(), tmp_path / "run", resume=True)
    assert done, news(record)
    lost = {arm: entry["state_lost"] for arm, entry in entries(record).items()}
    assert {entry["centre"] for found in lost.values() for entry in found} == {"B"}
    assert all(len(found) <= 1 for found in lost.values())


def test_a_centre_that_loses_its_states_within_a_run_begins_anew(federated, conduct_in_process, tmp_path):
    wiped = []

    def wipe(job, message):
        key = job.body.get("federation")
        if job.kind in FEDERATED_KINDS and job.centre == "C" and job.expects_state == 2 and key not in wiped:
            wiped.append(key)
            shutil.rmtree(tmp_path / "run" / "centres" / "C" / "states" / key)
        return None

    done, record = conduct_in_process(federated(), tmp_path / "run", fault=Centre(interfere=wipe))
    assert done, news(record)
    found = entries(record)
    assert len(wiped) == 2
    for arm in ("average", "remote"):
        assert [entry["centre"] for entry in found[arm]["state_lost"]] == ["C"]
    assert found["average"]["used"] == 8, "it took part in every round"


def test_a_centre_that_lost_moved_patches_gets_them_again_on_resume(federated, conduct_in_process, tmp_path):
    arm = "{strategy: pooled_gan, model: dcgan, width: 4, batch_size: 4, rounds: 3, local_steps: 1, "
    arm += "fidelity: {images: 16, fewest_patients: 2}}"
    scenario = federated(f"arms={{real: {{strategy: local}}, central: {arm}}}")
    with pytest.raises(KeyboardInterrupt):
        conduct_in_process(scenario, tmp_path / "run", fault=Centre(stop_at=10))
    shutil.rmtree(tmp_path / "run" / "centres" / "B" / "pools")
    done, record = conduct_in_process(scenario, tmp_path / "run", resume=True)
    assert not done
    assert any("no longer holds an input" in e.get("text", "") for e in news(record))
    centre = Centre()
    done, record = conduct_in_process(scenario, tmp_path / "run", resume=True, fault=centre)
    assert done and centre.kinds["send_patches"] == 1 and entries(record)["central"]["rounds_or_updates"] == 3


# -- answers that cannot be trusted --------------------------------------------------------------------------


def answer_with(job, message, arrays=None, **changes):
    """A message that claims to be the centre's answer, without the checks that a centre makes of its own."""
    reply = replace(
        Reply(job.study, job.unit, job.centre, job.kind, body={"examples": 5, "transport_error": 0.0}), **changes
    )
    record = reply.to_record()
    if arrays is not None:
        envelope = json.loads(str(record.config_records["envelope"]["json"]))
        envelope["array_bytes"] = sum(array.nbytes for array in arrays.values())
        record.config_records["envelope"]["json"] = json.dumps(envelope)
        record = RecordDict(
            {
                "envelope": record.config_records["envelope"],
                "arrays": ArrayRecord({name: Array(array) for name, array in arrays.items()}),
            }
        )
    return Message(record, reply_to=message)


def test_answers_that_cannot_be_trusted_are_refused_and_the_others_go_on(federated, conduct_in_process, tmp_path):
    bad = {
        0: ("not_finite", lambda job, m: answer_with(job, m, {"weights.x": np.full(3, np.nan, np.float32)})),
        1: ("wrong_arrays", lambda job, m: answer_with(job, m, {"weights.x": np.zeros(3, np.float32)})),
        2: ("foreign_reply", lambda job, m: answer_with(job, m, unit="another")),
        3: ("foreign_reply", lambda job, m: answer_with(job, m, study="another")),
    }
    spoilt = []

    def interfere(job, message):
        if job.kind == "train_round" and job.centre == "C" and "average" in job.label:
            spoilt.append(job.body["round"])
            return bad[job.body["round"]][1](job, message)
        if job.kind == "train_discriminator" and job.centre == "C":
            shape = (1, 4, 1, 32, 31)
            return answer_with(job, message, {"gradient.images": np.zeros(shape, np.float32)})
        return None

    centre = Centre(interfere=interfere)
    done, record = conduct_in_process(federated("arms.average.quorum=1"), tmp_path / "run", fault=centre)
    assert done, news(record)
    found = entries(record)
    assert spoilt == [0, 1, 2, 3] and found["average"]["used"] == 4
    assert sorted(found["average"]["notes"]) == [
        "C: foreign_reply (2 jobs)", "C: not_finite (1 jobs)", "C: wrong_arrays (1 jobs)",
    ]  # fmt: skip
    assert found["remote"]["notes"] == ["C: wrong_arrays (5 jobs)"] and found["remote"]["used"] == 10
    assert [gone["centre"] for gone in found["remote"]["gone"]] == ["C"]
    assert not found["ring"]["notes"]
    card = json.loads((record.folder / "generators" / "remote" / "card.json").read_text())
    assert card["centre"] == "B", "nothing of C went into it"


def test_a_federation_that_cannot_go_on_takes_only_its_own_arm(federated, conduct_in_process, tmp_path):
    def interfere(job, message):
        spoil = job.kind == "train_round" and "average" in job.label and job.body["round"] == 1
        return answer_with(job, message, {"weights.x": np.zeros(3, np.float32)}) if spoil else None

    done, record = conduct_in_process(federated(), tmp_path / "run", fault=Centre(interfere=interfere))
    assert not done
    assert set(record.results()["arm"]) == {"real", "ring", "remote"}
    (note,) = [e["text"] for e in news(record) if e["event"] == "note" and "average" in e.get("text", "")]
    assert "round 2 had 0 good answers and the quorum is 2; no answer from B, C" in note
    last = record.events()[-1]
    # The last line says which arm, why, and what to change; and no table claims a result for it.
    assert last["exit_status"] == 1 and "average" in last["text"] and "the quorum is 2" in last["text"]
    assert "bring them back and resume, or lower quorum" in last["text"]
    assert "the quorum is 2" in entries(record)["average"]["failed"] and not entries(record)["remote"]["failed"]
    report = (record.folder / "report.html").read_text() if (record.folder / "report.html").exists() else ""
    assert "average: it has no result" in report or not report
    # When the centres are repaired, a resumed run goes on from the last good round.
    centre = Centre()
    done, record = conduct_in_process(federated(), tmp_path / "run", resume=True, fault=centre)
    assert done, news(record)
    assert entries(record)["average"]["rounds_or_updates"] == 4
    assert centre.kinds["train_round"] == 6 and "train_discriminator" not in centre.kinds


# -- Flower's runtime ----------------------------------------------------------------------------------------


@pytest.mark.runtime
@pytest.mark.slow
def test_ray_gives_the_bytes_of_the_in_process_engine(faulty, federated, patch_cache, tmp_path):
    scenario = tmp_path / "federated.yaml"
    scenario.write_text(resolved_yaml(federated(faults=True)))
    command = [sys.executable, "-m", "polycentre", "run", str(scenario), "--out", str(tmp_path / "run")]
    done = subprocess.run(
        [*command, "--cache", str(patch_cache)], cwd=CHECKOUT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert bytes_of(RunRecord.open(tmp_path / "run")) == bytes_of(faulty[0])
