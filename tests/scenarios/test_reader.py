"""Reading scenarios: every shipped file loads; every mistake is one line that names file, key, value and remedy."""

import textwrap

import pytest
from yaml_changes import with_values

from scenarios.plan import Plan
from scenarios.reader import ScenarioError, find, parse, read, resolved_yaml, shipped

GOOD = """
name: small
centres:
  A: {roles: [receiver], data: {source: phantom, patients: 20}}
  B: {roles: [provider], data: {source: phantom, patients: 20, scanner: film}}
task: {label: lesion, image_size: 32}
generators:
  g: {centre: B, model: dcgan, steps: 10}
arms:
  none: {strategy: local}
  shared: {strategy: one_shot, generators: [g]}
"""


def read_text(text, tmp_path, *overrides):
    return parse(textwrap.dedent(text), source="x.yaml", base=tmp_path, overrides=list(overrides))


def changed(**places):
    """GOOD with values put at dotted paths; None removes."""
    return with_values(GOOD, **places)


@pytest.fixture(autouse=True)
def no_packages(monkeypatch):
    """Shipped scenarios may name packages that are not here; their text is what is tested."""
    monkeypatch.setattr("scenarios.plan.read_package", lambda name, folder: None)


@pytest.mark.parametrize("name", sorted(shipped()))
def test_every_shipped_scenario_loads_and_survives_its_own_resolution(name, tmp_path, monkeypatch):
    monkeypatch.setenv("POLYCENTRE_TEST_DATA", "/data")
    scenario = read(name)
    again = parse(resolved_yaml(scenario), source="resolved", base=tmp_path)
    assert resolved_yaml(again) == resolved_yaml(scenario)
    assert scenario.description, "`polycentre scenarios` shows it"
    Plan(scenario).cells()


def test_paper_000_can_be_expressed():
    s = read("iwbi2022_mammography")
    assert [t.name for t in s.all_tasks] == ["all", "masses"]
    assert s.generators["optimam_dcgan"].package and s.generators["optimam_dcgan"].centre is None
    assert {g.centre for g in s.generators.values()} == {"bcdr", None}
    assert s.arms["both_a"].generators == ("bcdr_dcgan", "optimam_dcgan")
    # 8 arms x 2 tasks x 2 classifiers x 2 fractions x 3 repeats
    assert len(Plan(s).cells()) == 8 * 2 * 2 * 2 * 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (changed(task__imagesize=32), r"x\.yaml: task\.imagesize: unknown key; known keys: .*image_size"),
        (changed(name=None), r"x\.yaml: name: is missing"),
        (changed(repeats=0), r"x\.yaml: repeats: 0: .*greater than or equal to 1"),
        (changed(centres__A__data__scanner="xray"), r"x\.yaml: centres\.A\.data\.scanner: 'xray': .*digital"),
        (changed(centres__A__data__patient=3), r"centres\.A\.data\.patient: unknown key; known keys: .*patients"),
        (changed(centres__B__roles=["test"]), r"no centre has the role provider"),
        (changed(centres__A__roles=["test"]), r"no centre has the role receiver; centres: A, B"),
        (changed(generators__g__centre="Z"), r"generators\.g\.centre: no centre 'Z'; centres: A, B"),
        (changed(generators__g__centre="A"), r"generators\.g\.centre: centre 'A' lacks the role provider"),
        (
            changed(generators__g__model="gan"),
            r"generators\.g\.model: .*no model 'gan'; known models: dcgan, wgan_gp, flow_matching",
        ),
        (changed(generators__g__stepz=3), r"generators\.g: .*unknown key stepz; dcgan takes .*steps"),
        (changed(arms__shared__generators=["h"]), r"arms\.shared\.generators: no generator 'h'; generators: g"),
        (
            changed(arms__shared__classes="both"),
            r"arms\.shared\.classes: no generator makes 'healthy' \(g makes lesion\); set conditional: true there",
        ),
        (changed(arms__shared__strategy="telepathy"), r"arms\.shared: .*'telepathy'.*local"),
        (changed(study={"test_on": ["Q"]}), r"study\.test_on: no centre 'Q'"),
        (
            changed(study={"classifiers": ["vgg"]}),
            r"study\.classifiers\.0\.model: 'vgg': no classifier 'vgg'; known classifiers: cnn",
        ),
        (changed(study={"real_fraction": [1.5]}), r"study\.real_fraction\.0: 1\.5: .*less than or equal to 1"),
        (changed(study={"real_fraction": [1.0], "real_images": [10]}), r"keep one"),
        (changed(study={"schedule": {"real": "ten"}}), r"study\.schedule\.real: 'ten': must be a number of steps"),
        (changed(task=None), r"exactly one of `task`"),
        (changed(arms={}), r"x\.yaml: arms: needs at least 1, and there are 0"),
        (changed(centres__A__roles=[]), r"centres\.A\.roles: needs at least 1, and there are 0"),
        (changed(centres__A="x"), r"x\.yaml: centres\.A: 'x': must have keys of its own"),
        (
            changed(centres__A__data={"source": "pacs"}),
            r"centres\.A\.data: source is 'pacs'; must be one of 'phantom', ",
        ),
        (changed(centres__A__data={"patients": 3}), r"x\.yaml: centres\.A\.data: source is missing"),
        (changed(name="../x"), r"x\.yaml: name: '\.\./x': must start with a letter"),
        (changed(task__name="../../x"), r"x\.yaml: task\.name: '\.\./\.\./x': "),
        (changed(generators__g__image="3"), r"generators\.g: .*unknown key image"),
        (changed(task__image_size=36), r"generators\.g: .*image_size is 36 px; dcgan makes sides of"),
        ("? [a]\n: 3\n", r"x\.yaml: line 1: a key is a list"),
        ("name: a\0b", r"x\.yaml: is not YAML"),
        ("name: x\nname: y\n", r"x\.yaml: line 2: key 'name' is repeated"),
        ("name: [", r"x\.yaml: line \d+: "),
        ("", r"x\.yaml: holds no settings"),
    ],
)
def test_a_mistake_is_named_with_its_remedy(text, expected, tmp_path):
    with pytest.raises(ScenarioError) as problem:
        read_text(text, tmp_path)
    import re

    assert re.search(expected, str(problem.value)), str(problem.value)
    assert all(line.startswith("x.yaml: ") for line in str(problem.value).splitlines())


def test_a_mistake_in_a_list_of_one_is_one_line(tmp_path):
    """pydantic also says that the list is too short without it."""
    with pytest.raises(ScenarioError) as problem:
        read_text(changed(centres__A__roles=["boss"]), tmp_path)
    assert str(problem.value) == "x.yaml: centres.A.roles.0: 'boss': must be 'provider', 'receiver' or 'test'"


def test_overrides_change_what_they_name(tmp_path):
    s = read_text(
        GOOD,
        tmp_path,
        "study.synthetic=60",
        "centres.A.data.patients=7",
        "study.real_fraction=[0.5, 1.0]",
        "generators.g.batch_size=4",
    )
    assert (s.study.synthetic, s.centres["A"].data.patients, s.study.real_fraction) == (60, 7, (0.5, 1.0))
    assert s.generators["g"].training["batch_size"] == 4


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("study.synthetic", "must look like key.path=value"),
        ("name.x=3", "name is 'small', it has no keys of its own"),
        ("study.synthetik=3", "study.synthetik: unknown key"),
        ("repeats=[", "not valid YAML"),
    ],
)
def test_bad_overrides_are_named(override, expected, tmp_path):
    with pytest.raises(ScenarioError, match=expected.replace(".", r"\.")):
        read_text(GOOD, tmp_path, override)


def test_an_override_below_a_list_of_names_is_refused(tmp_path):
    text = changed(study={"classifiers": ["cnn_small"]})
    with pytest.raises(ScenarioError, match="study.classifiers.0 is 'cnn_small', it has no keys of its own"):
        read_text(text, tmp_path, "study.classifiers.0.model=cnn")


def test_a_scenario_that_is_not_text_is_named(tmp_path):
    (tmp_path / "x.yaml").write_bytes(b"name: \xff\xfe")
    with pytest.raises(ScenarioError, match="cannot be read as UTF-8"):
        read(tmp_path / "x.yaml")


def test_an_arm_changes_only_the_stages_that_it_names(tmp_path):
    text = changed(study={"schedule": {"real": 50, "pretrain": 100}}, arms__shared__schedule={"mix": 9})
    s = read_text(text, tmp_path)
    schedule = s.arms["shared"].settings(s.study).schedule
    assert (schedule.real, schedule.pretrain, schedule.mix, schedule.fine_tune) == (50, 100, 9, 240)
    again = parse(resolved_yaml(s), source="resolved", base=tmp_path)
    assert again.arms["shared"].settings(again.study) == s.arms["shared"].settings(s.study)


def test_paths_start_at_the_scenario_and_take_variables(tmp_path, monkeypatch):
    text = changed(centres__A__data={"source": "folder", "path": "images"})
    assert str(read_text(text, tmp_path).centres["A"].data.path) == str(tmp_path / "images")
    text = changed(centres__A__data={"source": "folder", "path": "${SOME_PLACE}/x"})
    with pytest.raises(ScenarioError, match="environment variable SOME_PLACE is not set"):
        read_text(text, tmp_path)
    monkeypatch.setenv("SOME_PLACE", str(tmp_path / "there"))
    assert str(read_text(text, tmp_path).centres["A"].data.path) == str(tmp_path / "there" / "x")


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("derm_federated_small", "dermatology_ham10000_200x150"),
        ("ham10000_three_centres", "dermatology_ham10000_200x150"),
        ("mini_mias_simulated_centres", "mammography_mini_mias"),
    ],
)
def test_a_shipped_scenario_of_real_images_says_in_one_line_how_to_name_them(name, folder, monkeypatch):
    monkeypatch.delenv("POLYCENTRE_TEST_DATA", raising=False)
    with pytest.raises(ScenarioError) as problem:
        read(name)
    text = str(problem.value)
    assert "\n" not in text
    assert f"POLYCENTRE_TEST_DATA is not set; set it to the folder that holds {folder}, or use --set" in text
    # The remedy, as it is written there, works.
    changes = [word.replace("PATH", "/somewhere") for word in text.split() if word.startswith("centres.")]
    assert {str(centre.data.path) for centre in read(name, changes).centres.values()} == {"/somewhere"}


def test_no_shipped_scenario_reads_from_beside_the_checkout():
    for file in shipped().values():
        assert "../" not in file.read_text(encoding="utf-8"), file.name


def test_each_variable_that_is_not_set_is_one_line(tmp_path, monkeypatch):
    for name in ("FIRST", "SECOND"):
        monkeypatch.delenv(name, raising=False)
    text = changed(
        centres__A__data={"source": "folder", "path": "${FIRST}"},
        centres__B__data={"source": "folder", "path": "${SECOND}/b", "exclude": "${FIRST}/x.csv"},
    )
    with pytest.raises(ScenarioError) as problem:
        read_text(text, tmp_path)
    assert str(problem.value).splitlines() == [
        "x.yaml: environment variable FIRST is not set; set it to the folder that holds x.csv, "
        "or use --set centres.A.data.path=PATH --set centres.B.data.exclude=PATH",
        "x.yaml: environment variable SECOND is not set; set it to the folder that holds b, or use --set centres.B.data.path=PATH",
    ]


def test_a_missing_file_lists_what_is_shipped():
    with pytest.raises(ScenarioError, match="nowhere.yaml: no such file; shipped scenarios: demo"):
        read("nowhere.yaml")
    assert find("scenarios/demo.yaml") == find("demo")


DEALT = """
name: dealt
seed: 3
centres:
  A: {roles: [receiver]}
  B: {roles: [provider]}
  C: {roles: [provider], data: {source: phantom, patients: 20}}
partition: {source: {source: phantom, patients: 60}, centres: {A: 40, B: 100}}
task: {label: lesion, image_size: 32}
generators:
  g: {centre: B, model: dcgan, steps: 10}
arms:
  none: {strategy: local}
  shared: {strategy: one_shot, generators: [g]}
"""


def test_a_partition_gives_its_centres_their_part_and_survives_its_own_resolution(tmp_path):
    scenario = read_text(DEALT, tmp_path)
    bodies = {c: Plan(scenario).data(c, "lesion")["data"] for c in "ABC"}
    assert {c: b["source"] for c, b in bodies.items()} == {"A": "dealt", "B": "dealt", "C": "phantom"}
    assert bodies["A"] == bodies["B"] | {"centre": "A"}, "one rule, one archive, one seed"
    assert bodies["A"]["partition"]["seed"] == 3 and bodies["A"]["archive"]["patients"] == 60
    text = resolved_yaml(scenario)
    assert "dealt" not in text.replace("name: dealt", "")
    again = parse(text, source="resolved", base=tmp_path)
    assert resolved_yaml(again) == text
    assert {c: Plan(again).data(c, "lesion")["data"] for c in "ABC"} == bodies


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("partition.source.patient=3", r"x\.yaml: partition\.source: patient: unknown key; known keys: .*patients"),
        ("partition.source.source=pacs", r"partition\.source: source is 'pacs'; known sources: phantom, folder"),
        ("partition.by=age", r"x\.yaml: partition\.by: 'age': .*size"),
        ("partition.centre={A: 1}", r"partition\.centre: unknown key; known keys: .*centres"),
        ("partition.centres={A: 40}", r"x\.yaml: centres\.B\.data: is missing"),
        ("partition.centres={A: 40, B: 30, D: 2}", r"partition\.centres: no centre 'D'; centres: A, B, C"),
        ("partition.centres={A: 40, B: 30, C: 2}", r"centres\.C\.data: the partition deals to 'C', too"),
        ("partition.alpha=1", r"partition: by size takes no alpha"),
    ],
)
def test_an_impossible_partition_is_one_line(override, expected, tmp_path):
    with pytest.raises(ScenarioError, match=expected) as error:
        read_text(DEALT, tmp_path, override)
    assert "\n" not in str(error.value)
