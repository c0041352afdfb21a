"""One entry for many centres: what it stands for, that nothing else changes, and what is refused."""

import copy

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from scenarios.groups import GroupError, merge_alike, write_out_groups
from scenarios.plan import Plan
from scenarios.reader import ScenarioError, parse, read, resolved_yaml

SCENARIO = """
name: groups
centres:
  A: {roles: [receiver], data: {source: phantom, patients: 20}}
  c:
    count: 5
    roles: [provider, test]
    data: {source: phantom, patients: [16, 24], scanner: [film, digital-2, digital], densities: [.1, .4, .4, .1]}
    availability: {speed: [1.0, 0.5]}
  Z: {roles: [provider], data: {source: phantom, patients: 8}}
task: {label: lesion, image_size: 32}
generators:
  g: {centre: c, model: [dcgan, flow_matching], steps: [10, 20, 30], batch_size: 4}
  z: {centre: Z, model: flow_matching, widths: [32, 64], steps: 10}
  second: {centre: c2, model: dcgan, steps: 10}
arms:
  real: {strategy: local}
  some: {strategy: one_shot, generators: [z, g]}
  all: {strategy: pooled, centres: [c, Z]}
  federated: {strategy: fedavg_gan, model: dcgan, centres: [c]}
study: {test_on: [A, c], synthetic: 60}
"""


def tree(**changes):
    """The scenario's tree with values put at dotted paths."""
    found = yaml.safe_load(SCENARIO)
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = found
        for parent in parents:
            place = place[parent]
        place[last] = value
    return found


def read_tree(found, tmp_path, *overrides):
    text = yaml.safe_dump(found, sort_keys=False)
    return parse(text, source="x.yaml", base=tmp_path, overrides=list(overrides))


def test_members_stand_in_the_place_of_their_group_and_take_values_in_turn(tmp_path):
    s = read_tree(tree(), tmp_path)
    assert list(s.centres) == ["A", "c1", "c2", "c3", "c4", "c5", "Z"]
    members = [s.centres[f"c{number}"] for number in range(1, 6)]
    assert [m.data.scanner for m in members] == ["film", "digital-2", "digital", "film", "digital-2"]
    assert [m.data.patients for m in members] == [16, 24, 16, 24, 16]
    assert [m.availability.speed for m in members] == [1.0, 0.5, 1.0, 0.5, 1.0]
    # Where the schema wants a list, all have that list.
    assert {m.roles for m in members} == {("provider", "test")} and {m.data.densities for m in members} == {
        (0.1, 0.4, 0.4, 0.1)
    }


def test_a_generator_at_a_group_is_one_at_each_member(tmp_path):
    s = read_tree(tree(), tmp_path)
    assert list(s.generators) == ["g1", "g2", "g3", "g4", "g5", "z", "second"]
    own = [s.generators[f"g{number}"] for number in range(1, 6)]
    assert [g.centre for g in own] == ["c1", "c2", "c3", "c4", "c5"]
    assert [g.model for g in own] == ["dcgan", "flow_matching", "dcgan", "flow_matching", "dcgan"]
    assert [g.training["steps"] for g in own] == [10, 20, 30, 10, 20]
    assert s.generators["z"].hyper_parameters["widths"] == [32, 64] and s.generators["second"].centre == "c2"


def test_the_models_own_keys_are_taken_in_turn_unless_they_are_lists(tmp_path):
    wants_a_list = {"model": "flow_matching", "widths": [32, 64], "steps": 10, "centre": "c"}
    s = read_tree(tree(generators__g=wants_a_list), tmp_path)
    assert all(s.generators[f"g{number}"].hyper_parameters["widths"] == [32, 64] for number in range(1, 6))
    wants_a_number = {"model": "dcgan", "width": [8, 16], "steps": 10, "centre": "c"}
    s = read_tree(tree(generators__g=wants_a_number), tmp_path)
    assert [s.generators[f"g{number}"].hyper_parameters["width"] for number in range(1, 6)] == [8, 16, 8, 16, 8]


def test_lists_of_names_hold_all_members_in_order(tmp_path):
    s = read_tree(tree(), tmp_path)
    assert s.arms["some"].generators == ("z", "g1", "g2", "g3", "g4", "g5")
    assert s.arms["all"].centres == ("c1", "c2", "c3", "c4", "c5", "Z")
    assert s.arms["federated"].centres == ("c1", "c2", "c3", "c4", "c5")
    assert s.study.test_on == ("A", "c1", "c2", "c3", "c4", "c5")
    receiving = tree(centres__c__roles=["provider", "receiver"], arms__real={"strategy": "local", "receivers": ["c"]})
    assert read_tree(receiving, tmp_path).arms["real"].receivers == ("c1", "c2", "c3", "c4", "c5")


def test_written_out_it_is_the_scenario_in_long_hand(tmp_path):
    long_hand = tree()
    scanners, centres = ["film", "digital-2", "digital"], {"A": long_hand["centres"]["A"]}
    generators = {}
    for index in range(5):
        centres[f"c{index + 1}"] = {
            "roles": ["provider", "test"],
            "data": {"source": "phantom", "patients": [16, 24][index % 2], "scanner": scanners[index % 3],
                     "densities": [0.1, 0.4, 0.4, 0.1]},
            "availability": {"speed": [1.0, 0.5][index % 2]},
        }  # fmt: skip
        generators[f"g{index + 1}"] = {
            "centre": f"c{index + 1}", "model": ["dcgan", "flow_matching"][index % 2], "steps": [10, 20, 30][index % 3],
            "batch_size": 4,
        }  # fmt: skip
    members = list(centres)[1:]
    long_hand["centres"] = centres | {"Z": long_hand["centres"]["Z"]}
    long_hand["generators"] = generators | {name: long_hand["generators"][name] for name in ("z", "second")}
    long_hand["arms"]["some"]["generators"] = ["z", *generators]
    long_hand["arms"]["all"]["centres"] = [*members, "Z"]
    long_hand["arms"]["federated"]["centres"] = members
    long_hand["study"]["test_on"] = ["A", *members]
    assert resolved_yaml(read_tree(tree(), tmp_path)) == resolved_yaml(read_tree(long_hand, tmp_path))


@settings(max_examples=30)
@given(st.integers(1, 1200))
def test_names_are_of_equal_length_and_in_alphabetical_order(count):
    written, group_of = write_out_groups({"centres": {"c": {"count": count, "roles": ["provider"]}}})
    names = list(written["centres"])
    assert len(names) == count and names == sorted(names) and len({len(name) for name in names}) == 1
    assert [int(name.removeprefix("c")) for name in names] == list(range(1, count + 1))
    assert set(group_of) == set(names) and set(group_of.values()) == {"c"}


def test_without_groups_nothing_is_touched():
    found = tree(centres__c={"roles": ["provider"], "data": {"source": "phantom", "patients": [1, 2]}})
    before = copy.deepcopy(found)
    assert write_out_groups(found) == (found, {}) and found == before
    assert write_out_groups({"centres": ["c"], "study": 3}) == ({"centres": ["c"], "study": 3}, {})


def test_the_tree_that_was_read_is_not_changed():
    found = tree()
    before = copy.deepcopy(found)
    write_out_groups(found)
    assert found == before


def test_overrides_come_first(tmp_path):
    s = read_tree(tree(), tmp_path, "centres.c.count=12", "centres.c.data.scanner=film", "generators.second.centre=c02")
    assert list(s.centres)[1] == "c01" and s.generators["g12"].centre == "c12"
    assert {s.centres[name].data.scanner for name in s.providers if name != "Z"} == {"film"}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"centres__c__count": 0}, "centres.c.count: 0 must be a whole number from 1 to 10000"),
        ({"centres__c__count": True}, "centres.c.count: True must be"),
        ({"centres__c__count": "many"}, "centres.c.count: 'many' must be"),
        ({"centres__c__count": 10**9}, "centres.c.count: 1000000000 must be"),
        ({"centres__c3": {"roles": ["test"]}}, "centres.c3: 'c3' is also the name of a member of the group centres.c; rename"),
        ({"generators__g2": {"centre": "Z"}}, "generators.g2: 'g2' is also the name of a member of the group generators.g"),
        ({"centres__" + "x" * 40: {"count": 2}}, "its members are called '" + "x" * 40 + "1' and so on, 41 characters"),
        ({"centres__c__data__scanner": []}, "centres.c.data.scanner: is an empty list"),
        ({"generators__g__model": []}, "generators.g.model: is an empty list"),
        ({"study__test_on": "c"}, "study.test_on: 'c' is a group of 5, and a list is wanted; write [c]"),
        ({"arms__all__centres": "c"}, "arms.all.centres: 'c' is a group of 5"),
        ({"arms__some__generators": ["g2", "g"]}, "arms.some.generators: 'g2' is repeated"),
        ({"arms__some__generators": ["c"]}, "arms.some.generators: no generator 'c'; generators: g1, g2, "),
        ({"centres__c__count": 1, "centres__c1": {"count": 3}, "centres__c11": {}}, "'c11' is also the name of a member"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(changes, text, tmp_path):
    with pytest.raises(ScenarioError) as problem:
        read_tree(tree(**changes), tmp_path)
    assert str(problem.value).startswith("x.yaml: ") and text in str(problem.value), str(problem.value)
    assert len(str(problem.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"centres__c__data__scanner": "xray"}, "centres.c1.data.scanner: 'xray'"),
        ({"centres__c__data__colour": [1, 2]}, "centres.c1.data.colour: unknown key"),
        ({"centres__c__gpus": 1}, "centres.c1.gpus: unknown key"),
        ({"generators__g__count": 3}, "unknown key count"),
        ({"centres__c__roles": ["test"]}, "centre 'c1' lacks the role provider"),
    ],
)
def test_a_mistake_in_a_group_is_one_line(changes, text, tmp_path):
    with pytest.raises(ScenarioError) as problem:
        read_tree(tree(**changes), tmp_path)
    first = str(problem.value).splitlines()[0]
    assert text in first and first.endswith("more of its group)")


def test_lines_are_merged_only_where_the_member_alone_differs():
    lines = ["x: centres.c1.a: 3", "x: centres.c2.a: 3", "x: centres.c2.a: 4", "x: centres.d1.a: 3"]
    assert merge_alike(lines, {"c1": "c", "c2": "c"}) == [
        "x: centres.c1.a: 3 (and 1 more of its group)",
        "x: centres.c2.a: 4",
        "x: centres.d1.a: 3",
    ]
    assert merge_alike(lines, {}) == lines


def test_groups_are_refused_with_their_own_error():
    with pytest.raises(GroupError, match="count"):
        write_out_groups(tree(centres__c__count=-1))


def test_the_shipped_scenario_of_many_centres():
    s = read("many_centres")
    assert list(s.centres) == ["receiver", *(f"c{number:02d}" for number in range(1, 50))]
    scanners = [s.centres[name].data.scanner for name in s.providers]
    assert scanners == [("film", "digital-2", "digital")[index % 3] for index in range(49)]
    assert [(name, g.centre) for name, g in s.generators.items()] == [(f"g{n:02d}", f"c{n:02d}") for n in range(1, 50)]
    assert s.arms["all"].generators == tuple(s.generators)


def test_too_few_images_for_the_generators_of_a_group_names_the_remedy():
    with pytest.raises(ScenarioError, match="196 images from 999 generators; set it or study.synthetic to 999 or more"):
        read("many_centres", ["centres.c.count=999", "study.synthetic=196"])


def test_images_for_each_generator_are_as_many_as_the_same_number_for_all(tmp_path):
    """A receiver's own generator brings it nothing, and is not counted."""
    changes = {"centres__c__roles": ["provider", "receiver"], "generators__g__model": "dcgan"}
    each, number = (read_tree(tree(**changes), tmp_path, f"study.synthetic={own}") for own in ("7 per generator", 42))
    brought = {d.receiver: d.counts for d in Plan(each).deliveries.values() if d.arm == "some"}
    assert brought["A"] == ({1: 7},) * 6 and brought["c2"] == ({1: 7},) * 5
    assert {d.receiver: d.counts for d in Plan(number).deliveries.values() if d.arm == "some"}["A"] == ({1: 7},) * 6
    assert resolved_yaml(each).count("synthetic: 7 per generator") == 1
    # An arm that trains one model together brings one generator.
    assert [d.counts for d in Plan(each).deliveries.values() if d.arm == "federated"] == [({1: 7},)] * 6


@pytest.mark.parametrize("value", ["0", "-3", "4 per centre", "0 per generator", "1.5", "per generator"])
def test_what_is_no_number_of_images(value, tmp_path):
    for key in ("study", "arms.some"):
        with pytest.raises(ScenarioError, match=r"synthetic: .*such as 600, or '4 per generator'"):
            read_tree(tree(), tmp_path, f"{key}.synthetic={value}")


def test_a_partition_deals_to_every_member(tmp_path):
    archive = {"source": "folder", "path": "x"}
    found = tree(partition={"source": archive, "by": "size", "centres": {"c": 200, "Z": 30}})
    written, _ = write_out_groups(found)
    assert written["partition"]["centres"] == {**{f"c{number}": 200 for number in range(1, 6)}, "Z": 30}
    found["partition"]["centres"] = ["c", "Z"]
    assert write_out_groups(found)[0]["partition"]["centres"] == ["c1", "c2", "c3", "c4", "c5", "Z"]
    found["partition"]["centres"] = {"c": 200, "c3": 30}
    with pytest.raises(GroupError, match="partition.centres: 'c3' is repeated"):
        write_out_groups(found)


def test_a_thousand_centres_are_read_and_planned():
    """Also where each of them trains alone beside a federation of all: quadratic work would be felt as minutes here."""
    from scenarios.messages import expected_messages

    s = read(
        "many_centres",
        ["centres.c.count=999", "arms.average=null",
         "arms.together={strategy: fedavg_gan, model: dcgan, width: 8, batch_size: 4, alone: true}"],
    )  # fmt: skip
    plan = Plan(s)
    assert len(s.centres) == 1000 and len([one for one in plan.exchanges if one.strategy == "one_shot"]) == 999
    asks = [plan.survey_ask(centre) for centre in s.centres]
    assert len(asks[1].fixed["models"]) == 2
    rounds = ("train_summed_round", "train_round")
    assert [sum(row.messages for row in expected_messages(plan) if row.kind == kind) for kind in rounds] == [
        999 * 20
    ] * 2
