"""Exact counts by subtraction: of two tasks, of a total and its parts, and of an error number."""

import pytest
from drawn_hospital import DrawnHospital, draw

from data_partitions import small_counts
from models.federated_parts import averaged_state
from strategies.ask import Ask
from strategies.fedavg_gan.local import arrays_of, build
from strategies.members import GLOBAL

ALL_IN_TRAINING = "split: {train: 1, val: 0, test: 0}"
KINDS = f"""
tasks:
  - {{name: all, image_size: 32, margin_px: 20}}
  - {{name: mass, lesions: mass, image_size: 32, margin_px: 20}}
  - {{name: calc, lesions: calcification, image_size: 32, margin_px: 20}}
{ALL_IN_TRAINING}
"""
EXACT = {
    "data_partitions.patch_dataset.shown_count": int, "data_partitions.patch_dataset.shown_total": sum,
    "data_partitions.patch_dataset.is_small": lambda count: False, "data_partitions.patch_dataset.HIDDEN": None,
    "strategies.survey.shown_count": int, "strategies.centre_side.shown_total": sum,
}  # fmt: skip


@pytest.fixture(scope="module", params=[1, 2])
def hospital(request, centre_file, tmp_path_factory):
    """Twenty-one lesions, of which so many are calcifications, and that number."""
    folder = tmp_path_factory.mktemp("hospital")
    pictures = draw(folder / "pictures", positives=21, negatives=20, calcifications=request.param)
    return DrawnHospital(centre_file, folder / "node", pictures), request.param


def numbers(card, label="lesion"):
    """What a survey says of the lesions of one task: how many there are, by every way in which it says so."""
    return card["boxes"]["train"][label], card["lesion_type"], card["patients"]


def surveyed(hospital, more=KINDS):
    plan = hospital.plan("counts", more)
    return hospital.survey(plan)


def test_a_survey_of_several_tasks_does_not_give_a_small_cell_away(hospital):
    node, _ = hospital
    reply = surveyed(node)
    assert reply.ok, reply.code
    cards = {task: found["card"] for task, found in reply.body["tasks"].items()}
    assert (numbers(cards["all"])[0], numbers(cards["mass"])[0]) == (20, 20), "21, and 19 to 21"
    assert set(numbers(cards["all"])[1]) == {"mass"}


def test_without_rounding_the_difference_is_the_cell(hospital, monkeypatch):
    node, calcifications = hospital
    for name, rule in EXACT.items():
        monkeypatch.setattr(name, rule)
    reply = surveyed(node)
    cards = {task: found["card"] for task, found in reply.body["tasks"].items()}
    assert numbers(cards["all"])[0] - numbers(cards["mass"])[0] == calcifications


def test_no_number_of_a_survey_is_exact(hospital):
    """A variation: all numbers of all cards and tables, whatever they are called."""
    node, _ = hospital
    reply = surveyed(node, f"task: {{name: all, image_size: 32, margin_px: 20, crops: 7}}\n{ALL_IN_TRAINING}")
    (task,) = reply.body["tasks"].values()
    shown = [*found_in({key: task["card"][key] for key in task["card"] if key not in ("image", "spacing_mm")})]
    shown += [*found_in([[row["patients"], row["images"]] for row in task["partition"]])]
    assert shown and all(value == small_counts.HIDDEN or value % 5 == 0 for value in shown)


def found_in(value):
    if isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from found_in(one)
    elif isinstance(value, int) or value == small_counts.HIDDEN:
        yield value


@pytest.mark.parametrize("defended", [True, False])
def test_the_number_of_an_error_is_no_count(hospital, defended, monkeypatch):
    node, _ = hospital
    if not defended:
        for name, rule in EXACT.items():
            monkeypatch.setattr(name, rule)
    plan = node.plan("errors", f"task: {{name: all, image_size: 32, margin_px: 20}}\n{ALL_IN_TRAINING}")
    needs = plan.survey_ask("B").fixed["tasks"]
    many = tuple(one.model_copy(update={"needs": one.needs.model_copy(update={"positives": 500})}) for one in needs)
    # A study that asks for so many, approved as it is.
    monkeypatch.setattr("clients.approved_study.question_of", lambda *of: None)
    ask = plan.survey_ask("B")
    asked = Ask(
        ask.kind, ask.strategy, ask.centre, ask.task, {**ask.fixed, "tasks": many}, ask.free, example=ask.example
    )
    reply = node.ask(plan, asked)
    assert (reply.code, reply.numbers["have"]) == ("too_few_positives", 20 if defended else 21)


@pytest.mark.parametrize("defended", [True, False])
def test_the_weight_of_an_answer_is_no_count(hospital, defended, monkeypatch):
    """Seven crops of each box: their rounded number would say how many boxes there are, that of the boxes does not."""
    node, _ = hospital
    if not defended:
        monkeypatch.setattr("strategies.fedavg_gan.local.boxes_as_weight", lambda patches: round(len(patches) / 5) * 5)
    plan = node.plan(
        "rounded" if defended else "exact",
        f"task: {{name: all, image_size: 32, margin_px: 20, crops: 7}}\n{ALL_IN_TRAINING}",
    )
    ask = next(ask for ask in plan.asks() if (ask.kind.name, ask.centre) == ("train_round", "B"))
    weights = arrays_of(averaged_state(build(ask.fixed["generator"], ask.fixed["build_seed"])))
    found = {
        "federation": "ab12",
        "state_unit": "",
        "fresh": 0,
        "attempt": 0,
        "introduce": False,
        "round": 0,
        "from_step": 0,
    }
    reply = node.ask(plan, ask, {GLOBAL + name: array for name, array in weights.items()}, **found)
    assert reply.ok, (reply.code, reply.numbers)
    guessed = round(reply.body["examples"] / (1 if defended else 7))
    assert guessed == (20 if defended else 21)
