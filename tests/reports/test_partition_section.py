"""partition.csv in the report: each centre's rows, and one row a split and class where there are many centres."""

import fake_run
import pytest

from reports.run_record import RunRecord
from reports.sections.centres import MANY, partition_tables
from reports.study import read_study


def tables(tmp_path, centres, **changes):
    scenario = "name: x\nseed: 0\nrepeats: 1\ncentres:\n" + "\n".join(f"  {c}: {{roles: [provider]}}" for c in centres)
    scenario += "\ntask: {name: lesion, label: lesion}\narms:\n  real: {strategy: local}\n"
    record = RunRecord.create(tmp_path / "run", scenario, {})
    assert partition_tables(record.partition(), read_study(scenario)) == []
    record.write_partition([row | changes for row in fake_run.partition_rows(centres)])
    return partition_tables(record.partition(), read_study(scenario))


def test_every_split_and_class_of_few_centres_in_the_scenarios_order(tmp_path):
    (table,) = tables(tmp_path, ["b", "a"])
    assert table["rows"] == [
        ["b", "training", "lesion", "35", "40"], ["b", "training", "healthy", "10", "30"],
        ["b", "validation", "lesion", "<5", "<5"], ["b", "test", "lesion", "5", "10"], ["b", "test", "healthy", "<5", "5"],
        ["a", "training", "lesion", "35", "45"], ["a", "training", "healthy", "10", "30"],
        ["a", "validation", "lesion", "<5", "<5"], ["a", "test", "lesion", "5", "10"], ["a", "test", "healthy", "<5", "5"],
    ]  # fmt: skip
    assert len(table["header"]) == len(table["text"]) == 5


def test_many_centres_are_six_rows(tmp_path):
    (table,) = tables(tmp_path, [f"c{i:03d}" for i in range(MANY + 1)])
    assert table["rows"] == [
        ["training", "lesion", 21, 0, "40", "90", "140"], ["training", "healthy", 21, 0, "30", "30", "30"],
        ["validation", "lesion", 21, 21, "–", "–", "–"], ["validation", "healthy", 0, 0, "–", "–", "–"],
        ["test", "lesion", 21, 0, "10", "10", "10"], ["test", "healthy", 21, 0, "5", "5", "5"],
    ]  # fmt: skip
    assert "21 centres" in table["caption"] and len(table["header"]) == len(table["text"]) == 7


def test_a_table_for_each_task(tmp_path):
    (table,) = tables(tmp_path, ["a"], task="masses")
    assert "Task masses" in table["caption"]


@pytest.mark.parametrize("name", ["NA", "None", "<script>"])
def test_names_stay_as_they_are(tmp_path, name):
    rows = fake_run.partition_rows([name])
    record = RunRecord.create(tmp_path / "run", "", {})
    record.write_partition(rows)
    assert set(record.partition()["centre"]) == {name}
