"""Every source of data can be named in a scenario, is checked there, and comes back from the resolved YAML."""

import pytest
from archives import write_bcdr, write_cbis_ddsm, write_cdd_cesm, write_ddsm, write_inbreast, write_omi_db

from data_partitions import SOURCES, SplitRule, build_patches
from scenarios.reader import ScenarioError, check_files, parse, resolved_yaml

ARCHIVES = {
    "inbreast": write_inbreast, "bcdr": write_bcdr, "cbis_ddsm": write_cbis_ddsm, "ddsm": write_ddsm, "omi_db": write_omi_db,
    "cdd_cesm": write_cdd_cesm,
}  # fmt: skip
TEXT = """
name: archives
centres:
  {name}: {{roles: [receiver], data: {{source: {source}, path: {path}{more}}}}}
  other: {{roles: [provider], data: {{source: phantom, patients: 4}}}}
task: {{name: lesion, label: {label}, image_size: 16, margin_px: 4, crops: 1}}
arms:
  real: {{strategy: local}}
  pooled: {{strategy: pooled, centres: [other]}}
study: {{classifiers: [cnn_small], test_on: [{name}], minimum_positives: 1}}
"""


def scenario(folder, source, more="", name="hospital", label="malignancy"):
    text = TEXT.format(name=name, source=source, path=folder, more=more, label=label)
    return parse(text, source="archives.yaml", base=folder)


def test_every_archive_is_tried_here():
    assert set(ARCHIVES) | {"phantom", "folder"} <= set(SOURCES)


@pytest.mark.parametrize("source", ARCHIVES)
def test_a_scenario_names_an_archive_and_its_patches_can_be_cut(tmp_path, source):
    folder = tmp_path / "archive"
    ARCHIVES[source](folder)
    read = scenario(folder, source, ", max_bad_fraction: 0.5")
    check_files(read, "archives.yaml")
    data = read.centres["hospital"].data
    assert type(data) is SOURCES[source] and data.max_bad_fraction == 0.5
    assert parse(resolved_yaml(read), source="again", base=tmp_path).centres == read.centres
    cut = build_patches(data, read.all_tasks[0], SplitRule(), centre="hospital", seed=0, cache=tmp_path / "cache")
    assert cut.pixels.shape[1:] == (1, 16, 16) and set(cut.labels) == {0, 1}
    assert str(folder) not in str(cut.report)


@pytest.mark.parametrize("name", ["hospital", "inbreast"])
def test_errors_name_the_key_even_where_a_centre_has_the_name_of_a_source(tmp_path, name):
    with pytest.raises(ScenarioError, match=f"centres.{name}.data.colour: unknown key; known keys: .*single_points"):
        scenario(tmp_path, "inbreast", ", colour: red", name)
    with pytest.raises(ScenarioError, match=f"centres.{name}.data.max_bad_fraction: 2"):
        scenario(tmp_path, "inbreast", ", max_bad_fraction: 2", name)
    with pytest.raises(ScenarioError, match=f"no folder {tmp_path}/nowhere"):
        check_files(scenario(tmp_path / "nowhere", "inbreast", name=name), "archives.yaml")


def test_images_of_hospitals_need_not_be_on_the_operators_machine(tmp_path):
    elsewhere = scenario(tmp_path / "nowhere", "inbreast")
    with pytest.raises(ScenarioError, match="no folder"):
        check_files(elsewhere, "archives.yaml")
    check_files(elsewhere, "archives.yaml", data_here=False)
