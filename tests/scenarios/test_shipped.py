"""Every shipped scenario runs from end to end, cut down in steps and repeats, not in its parts."""

import pytest

from reports.html import build_report
from scenarios.reader import read

pytestmark = pytest.mark.slow

QUICK = [
    "repeats=1",
    "study.schedule={real: 10, mix: 10, pretrain: 10, fine_tune: 10}",
    "study.synthetic=60",
    "compute.precision=fp32",
]


def quick(name, *overrides):
    scenario = read(name)
    steps = [f"generators.{g}.steps=3" for g in scenario.generators] + [
        f"generators.{g}.batch_size=4" for g in scenario.generators
    ]
    return read(name, [*QUICK, *steps, *overrides])


def test_demo(conduct_in_process, tmp_path):
    done, record = conduct_in_process(quick("demo", "arms.oversampled.oversample=60"), tmp_path / "run")
    assert done and record.results()["arm"].nunique() == 6


def test_many_centres(conduct_in_process, tmp_path):
    done, record = conduct_in_process(read("many_centres"), tmp_path / "run")
    assert done
    assert len({info["centre"] for info in record.units() if info["kind"] == "train_generator"}) == 49


@pytest.mark.parametrize("name", ["ham10000_three_centres", "mini_mias_simulated_centres"])
def test_real_images(name, conduct_in_process, tmp_path, real_images, monkeypatch):
    monkeypatch.setenv("POLYCENTRE_TEST_DATA", str(real_images))
    done, record = conduct_in_process(
        quick(name, "generators.c_flow.sampling_steps=2") if "mias" in name else quick(name), tmp_path / "run"
    )
    assert done
    assert record.results().query("metric == 'auroc'")["value"].notna().all()
    assert build_report(record).exists()


def test_whole_mammograms_by_a_network_that_grows(conduct_in_process, tmp_path, real_images, monkeypatch):
    monkeypatch.setenv("POLYCENTRE_TEST_DATA", str(real_images))
    own = ["steps=15", "snapshot_from=5", "snapshot_every=5", "batch_size=4"]
    overrides = [*QUICK, *(f"generators.whole.{one}" for one in own)]
    done, record = conduct_in_process(read("pggan_mammograms_small", overrides), tmp_path / "run")
    assert done and record.results().query("metric == 'auroc'")["value"].notna().all()


def test_ham10000_refuses_the_source_with_too_few_positives(conduct_in_process, tmp_path, real_images, monkeypatch):
    monkeypatch.setenv("POLYCENTRE_TEST_DATA", str(real_images))
    scenario = quick(
        "ham10000_three_centres", "centres.vidir_molemax.roles=[provider]",
        "generators.molemax_flow={centre: vidir_molemax, model: flow_matching, conditional: true, steps: 3, batch_size: 4}",
        "arms.molemax={strategy: one_shot, generators: [molemax_flow], classes: both}",
    )  # fmt: skip
    done, record = conduct_in_process(scenario, tmp_path / "run")
    end = record.events()[-1]
    assert not done and end["exit_status"] == 2
    assert "vidir_molemax" in end["text"] and "positive training examples" in end["text"]
