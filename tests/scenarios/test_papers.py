"""The shipped scenarios of papers 000 to 004 on invented archives in each one's true layout: read, checked, and patches cut."""

import numpy as np
import pytest
from archives import write_bcdr, write_cbis_ddsm, write_ddsm, write_inbreast, write_omi_db
from PIL import Image

from data_partitions import build_patches
from models import GeneratorPackage, GeneratorSpec
from scenarios.plan import Plan
from scenarios.reader import ScenarioError, check_files, read


def write_isic(folder, patients=60):
    rows = ["image_name,patient_id,sex,age_approx,anatom_site_general_challenge,diagnosis,benign_malignant,target"]
    folder.mkdir(parents=True)
    for number in range(patients):
        pixels = np.random.default_rng(number).integers(0, 256, (24, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"ISIC_{number:07d}.jpg")
        word = ("benign", "malignant")[number % 4 == 0]
        rows.append(f"ISIC_{number:07d},IP_{number:07d},male,45,torso,unknown,{word},{int(number % 4 == 0)}")
    (folder / "ISIC_2020_Training_GroundTruth_v2.csv").write_text("\n".join(rows))


def write_package(folder):
    """A generator of random weights in the place of the pretrained one."""
    spec = GeneratorSpec.model_validate(
        {
            "model": "dcgan",
            "image_size": 128,
            "classes": ["healthy", "lesion"],
            "hyper_parameters": {"width": 8},
            "training": {"steps": 1},
        }
    )
    GeneratorPackage(spec, spec.build(0).shared_arrays(), {}).write(folder)


def write_many_ddsm(folder):
    write_ddsm(folder, cancers=12, normals=12)


# Scenario: its variables, each with what writes the folder that it names.
PAPERS = {
    "iwbi2022_mammography": {"INBREAST": write_inbreast, "BCDR": write_bcdr, "OPTIMAM_PACKAGE": write_package},
    "dp_mcgan_2024": {"CBIS_DDSM": write_cbis_ddsm, "BCDR": write_bcdr},
    "derm_federated_2022": {"ISIC_2020": write_isic},
    "dm_gan_2023": {"INBREAST": write_inbreast, "DDSM": write_many_ddsm},
    "pggan_mammograms_2018": {"OPTIMAM": write_omi_db, "INBREAST": write_inbreast},
}
# 60 images cannot be dealt out as 33,126 are.
SMALLER = {"derm_federated_2022": ["partition.centres={small: 0.2, medium: 0.3, large: 0.5}"]}


@pytest.fixture(params=sorted(PAPERS))
def paper(request, tmp_path, monkeypatch):
    """Name of a scenario whose archives are there."""
    for variable, write in PAPERS[request.param].items():
        folder = tmp_path / variable.lower()
        write(folder)
        monkeypatch.setenv(variable, str(folder))
    return request.param


def test_a_scenario_is_valid_and_its_archives_become_patches(paper, tmp_path):
    scenario = read(paper)
    check_files(scenario, paper)
    assert {cell.arm for cell in Plan(scenario).cells()} == set(scenario.arms), "every arm runs somewhere"
    scenario = read(paper, SMALLER.get(paper))
    plan = Plan(scenario)
    for centre, section in list(scenario.centres.items())[:3]:
        for task in scenario.all_tasks:
            if centre in ("n01", "n02"):  # a tenth of the invented cases has one class only
                assert section.data.load(centre, 0, tmp_path / "cache", task).exams
                continue
            rule = plan.data(centre, task.name)["split"]
            patches = build_patches(section.data, task, rule, centre=centre, seed=0, cache=tmp_path / "cache")
            assert patches.pixels.shape[1:] == task.shape
            assert set(patches.labels) == {0, 1}, (centre, task.name)


@pytest.mark.parametrize("name", sorted(PAPERS))
def test_archives_that_are_not_there_are_named(name, tmp_path, monkeypatch):
    for variable in PAPERS[name]:
        monkeypatch.setenv(variable, str(tmp_path / "nowhere"))
    with pytest.raises(ScenarioError, match="nowhere"):
        check_files(read(name), name)


def test_what_is_missing_of_papers_001_and_004_is_said():
    said = {name: read(name).description for name in ("dp_mcgan_2024", "pggan_mammograms_2018")}
    assert (
        "WITHOUT its differential privacy" in said["dp_mcgan_2024"]
        and "NOT its view condition" in said["pggan_mammograms_2018"]
    )
