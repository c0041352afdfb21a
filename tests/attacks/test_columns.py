"""Columns that are called scanner, view or density and hold names: what comes out in the data card, with and without its list of words."""

import json

import pytest
from drawn_hospital import DrawnHospital, draw

from data_partitions import card_words

TASK = "task: {name: lesion, image_size: 32, margin_px: 20}"
STOLEN = {"scanner": "patient_name", "view": "patient_id", "laterality": "patient_name", "density": "patient_id"}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("pictures"), positives=20, negatives=20, scanners=10)


def card(centre_file, folder, pictures, columns):
    hospital = DrawnHospital(centre_file, folder, pictures, columns=columns)
    reply = hospital.survey(hospital.plan("columns", TASK))
    assert reply.ok, (reply.code, reply.numbers)
    return reply.body, reply.body["tasks"]["lesion"]["card"]


def names_in(body):
    text = json.dumps(body)
    return [k for k in range(40) if f"Jane Doe {k}" in text or f"MRN-{7000 + k}" in text]


def test_names_do_not_leave_as_scanners(centre_file, tmp_path, pictures):
    body, found = card(centre_file, tmp_path, pictures, STOLEN)
    assert names_in(body) == []
    for column in STOLEN:
        assert set(found[column]) == {"other"}, column


def test_without_the_list_every_name_leaves(centre_file, tmp_path, pictures, monkeypatch):
    monkeypatch.setattr("data_partitions.patch_dataset.WORDS", dict.fromkeys(card_words.WORDS, lambda text: text))
    monkeypatch.setattr("data_partitions.patch_dataset.is_small", lambda count: False)
    body, _ = card(centre_file, tmp_path, pictures, STOLEN)
    assert len(names_in(body)) == 40


def test_a_name_that_many_share_does_not_leave_either(centre_file, tmp_path, pictures):
    """A variation: the column is one of few values, each of many patients, but still none of the list."""
    table = (pictures / "metadata.csv").read_text().splitlines()
    other = tmp_path / "wards"
    other.mkdir()
    for file in pictures.glob("i*.png"):
        (other / file.name).hardlink_to(file)
    (other / "lesions.csv").write_bytes((pictures / "lesions.csv").read_bytes())
    rows = [f"{line},Dr Miller ward {k % 2}" for k, line in enumerate(table[1:])]
    (other / "metadata.csv").write_text("\n".join([f"{table[0]},ward", *rows]) + "\n")
    body, found = card(centre_file, tmp_path / "b", other, {"scanner": "ward"})
    assert "Miller" not in json.dumps(body) and set(found["scanner"]) == {"other"}


def test_a_scanner_of_few_patients_is_not_told_apart(centre_file, tmp_path, pictures):
    """Four of forty patients have the other maker's: who has a scanner of its own is a person."""
    _, found = card(centre_file, tmp_path, pictures, {})
    assert set(found["scanner"]) == {"Siemens"}
