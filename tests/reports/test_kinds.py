"""What the record says of kinds and strategies is all that the report knows of them."""

import re
from pathlib import Path

import fake_run
import pytest

from reports.kinds import Kinds
from reports.study import read_study

KINDS = Kinds.of(fake_run.KINDS)


def test_titles_are_those_of_the_record_and_otherwise_names():
    assert KINDS.title("learn") == "train a classifier" and KINDS.title("of_another_study") == "of another study"
    assert KINDS.strategy_title("pooled") == "real images move" and KINDS.strategy_title("my_own") == "my_own"
    old = Kinds.of({"kinds": [], "strategies": []})
    assert old.title("train_round") == "train round" and not old.is_rounds("gan_round") and KINDS.is_rounds("gan_round")


def test_the_first_kind_of_a_phase_has_its_colour_and_all_differ():
    colours = KINDS.colours(["test", "unknown", "gan_round", "learn", "survey", "gan_round", "synthesise"])
    assert list(colours) == ["survey", "gan_round", "synthesise", "learn", "test", "unknown"]
    assert (colours["survey"], colours["gan_round"], colours["learn"]) == ("#A7B0BC", "#0072B2", "#D55E00")
    assert len(set(colours.values())) == 6
    assert KINDS.colours(["train_generator", "gan_round"])["train_generator"] == "#0072B2"
    assert len(KINDS.colours(f"k{i}" for i in range(30))) == 30


SCENARIO = """
arms:
  a: {strategy: mine}
  b: {strategy: mine}
  c: {strategy: other, centres: [B], rounds: 3}
  d: {strategy: pooled, centres: [B]}
"""


def test_roles_follow_from_what_is_recorded_of_the_strategy():
    described = [
        {"strategy": "mine", "title": "", "pixels": False, "shares": False},
        {"strategy": "other", "title": "", "pixels": True},
        {"strategy": "pooled", "title": "", "pixels": False},
    ]
    found = read_study(SCENARIO, Kinds.of({"kinds": [], "strategies": described})).arms
    assert [arm.role for arm in found.values()] == ["baseline", "candidate", "upper bound", "candidate"]


def test_roles_of_an_older_run_follow_from_the_keys_of_its_arms():
    found = read_study(SCENARIO).arms
    assert [arm.role for arm in found.values()] == ["baseline", "candidate", "candidate", "upper bound"]


@pytest.mark.parametrize("path", sorted(Path(__file__).parents[2].glob("reports/**/*.py")), ids=lambda path: path.stem)
def test_no_kind_of_job_is_named_in_the_report(path):
    """But for the words that are names of phases and of splits, too: survey, learn, test."""
    kinds = "identify|train_generator|send_patches|receive_patches|synthesise|feature_sums|feature_secure_sums|measure_generator|"
    kinds += "train_round|"
    kinds += "train_discriminator|train_classifier_round|validate_classifier|adopt_classifier"
    strategies = "local|one_shot|pooled|fedavg_gan|cyclic|pooled_gan|dm_gan|md_gan|fedavg_classifier"
    assert not re.search(rf"""["'`]({kinds}|{strategies})["'`]""", path.read_text(encoding="utf-8"))
