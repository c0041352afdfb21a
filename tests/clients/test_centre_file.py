"""`centre.yaml`: every problem of a file at once, in lines that name key, value and remedy; and its working hours."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
import yaml

from clients.centre_file import CentreFile, CentreFileError
from clients.policy import takes_part
from clients.working_hours import WorkingHours
from strategies import STRATEGIES


def problems_of(path):
    with pytest.raises(CentreFileError) as refused:
        CentreFile.read(path)
    return str(refused.value).splitlines()


def test_a_file_with_what_is_needed_takes_the_careful_defaults(centre_file, tmp_path):
    file = CentreFile.read(centre_file(tmp_path, "B", release=None, minimums=None))
    assert (file.approve.bundles, file.approve.studies) == ("own", "listed")
    assert file.release.strategies == ("local", "one_shot") and file.release.predictions is False
    least = file.minimums
    assert (least.training_patients, least.sum_patients, least.test_patients, least.batch_size, least.steps) == (
        50,
        20,
        20,
        16,
        50,
    )
    assert file.working_hours is None and file.resources.threads == 1 and not file.preload


def test_paths_start_at_the_folder_of_the_file(centre_file, tmp_path, monkeypatch):
    data = {"source": "folder", "path": "images", "exclude": "/elsewhere/out.csv"}
    path = centre_file(tmp_path / "here", "B", data=data)
    monkeypatch.chdir(tmp_path)
    file = CentreFile.read(path.relative_to(tmp_path))
    here = tmp_path / "here"
    assert (file.key, file.root_certificate) == (here / "node.key", here / "ca.crt")
    assert (file.workspace, file.cache_folder) == (here / "workspace", here / "workspace" / "cache")
    assert file.data["path"] == str(here / "images") and file.data["exclude"] == "/elsewhere/out.csv"
    assert CentreFile.read(centre_file(tmp_path / "other", cache="kept")).cache_folder == tmp_path / "other" / "kept"


def test_where_no_strategy_is_named_one_generator_may_leave_once_and_nothing_else(centre_file, tmp_path):
    release = CentreFile.read(centre_file(tmp_path, "B", release=None)).release
    assert {name for name in STRATEGIES if takes_part(release, name)} == {"local", "one_shot"}


def test_a_node_that_lists_its_studies_says_where_its_data_are(centre_file, tmp_path):
    path = centre_file(tmp_path, "B", data=None)
    with pytest.raises(CentreFileError, match="data: is missing; write where this hospital's images and tables are"):
        CentreFile.read(path)
    assert CentreFile.read(path, complete=False).lacks_data
    assert CentreFile.read(centre_file(tmp_path, "B", data=None, approve={"studies": "any"})).data is None


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"centre": "../B"}, "centre: '../B' cannot be the name of a centre"),
        ({"superlink": "https://x.org"}, "superlink: 'https://x.org' is not an address; write host:port without https://"),
        ({"superlink": "x.org:0"}, "superlink: 'x.org:0' has no port between 1 and 65535"),
        ({"root_certificate": "none.crt"}, "none.crt; ask the operator of the SuperLink for it"),
        ({"key": "none.key"}, "none.key; create one"),
        ({"workspace": "ca.crt"}, "ca.crt is not a folder; name another place"),
        ({"keys": 3}, "keys: unknown key; known keys: centre, superlink"),
        ({"data": {"source": "folders"}}, "data.source: 'folders' is not a source of data; sources: phantom, folder"),
        ({"data": {"source": "dealt"}}, "data.source: 'dealt' is not a source of data"),
        ({"data": {"source": "phantom", "patients": 3, "scanner": "film", "patient": 3}},
         "data.patient: unknown key; known keys: source, patients"),
        ({"device": "gpu"}, "device: 'gpu' input should be 'auto', 'cpu' or 'cuda'"),
        ({"resources": {"threads": 0}}, "resources.threads: 0 input should be greater than or equal to 1"),
        ({"resources": {"memory": 2}}, "resources.memory: unknown key; known keys: threads, memory_gib"),
        ({"working_hours": {"from": 1140, "until": "07:00", "zone": "UTC"}}, 'working_hours.from: 1140 must be a time in quotes'),
        ({"working_hours": {"from": "7:00", "until": "08:00", "zone": "UTC"}}, "working_hours.from: '7:00' must be a time of 24 hours"),
        ({"working_hours": {"from": "07:00", "until": "07:00", "zone": "UTC"}}, "from and until are the same time"),
        ({"working_hours": {"from": "07:00", "until": "08:00", "zone": "Madrid"}}, "working_hours.zone: 'Madrid' is not a time zone"),
        ({"working_hours": {"from": "07:00", "until": "08:00", "zone": "UTC", "days": []}}, "working_hours.days: "),
        ({"approve": {"bundles": ["12ab"]}}, "approve.bundles.0: '12ab' is not the digest of a bundle; write its 64"),
        ({"approve": {"studies": "all"}}, "approve.studies: 'all' input should be 'listed' or 'any'"),
        ({"release": {"strategies": ["pooled"]}}, "release.strategies.0: 'pooled' moves real patches, which a deployed centre never does"),
        ({"release": {"strategies": ["gossip"]}}, "release.strategies.0: 'gossip' is not a strategy; strategies: local"),
        ({"release": {"epsilon_at_most": 0}}, "release.epsilon_at_most: 0 input should be greater than 0"),
        ({"release": {"largest_message_mib": 4096}}, "release.largest_message_mib: 4096 input should be less than"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_key_its_value_and_the_remedy(settings, expected, centre_file, tmp_path):
    path = centre_file(tmp_path, **{key: value for key, value in settings.items() if key != "centre"})
    if "centre" in settings:
        path.write_text(path.read_text().replace("centre: B", f"centre: {settings['centre']}"))
    (line,) = problems_of(path)
    assert line.startswith(f"{path}: ") and expected in line


def test_all_problems_are_reported_at_once(centre_file, tmp_path):
    path = centre_file(tmp_path, superlink="x", key="none", porto=1, data={"source": "x"})
    assert [line.split(": ")[1] for line in problems_of(path)] == ["superlink", "porto", "key", "data.source"]
    tree = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({key: tree[key] for key in ("superlink", "key")}))
    keys = [line.split(": ")[1] for line in problems_of(path)]
    assert keys == ["centre", "superlink", "root_certificate", "workspace", "key"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_that_others_can_read_is_refused(mode, centre_file, tmp_path):
    path = centre_file(tmp_path)
    (tmp_path / "node.key").chmod(mode)
    (line,) = problems_of(path)
    assert f"has mode {mode:04o}, so others can read it: chmod 600 {tmp_path / 'node.key'}" in line


@pytest.mark.parametrize(
    ("text", "expected"), [("[1", "is not YAML"), ("", "has no settings"), ("- 1", "has no settings")]
)
def test_what_is_not_a_centre_file(text, expected, tmp_path):
    (tmp_path / "centre.yaml").write_text(text)
    (line,) = problems_of(tmp_path / "centre.yaml")
    assert expected in line
    (line,) = problems_of(tmp_path / "absent.yaml")
    assert "cannot be read" in line


# -- working hours ---------------------------------------------------------------------------------------------------


def hours(**settings):
    return WorkingHours.model_validate({"from": "19:00", "until": "07:00", "zone": "Europe/Madrid"} | settings)


@pytest.mark.parametrize(
    ("moment", "inside"),
    [
        ("2026-03-02 18:59", False),  # a Monday
        ("2026-03-02 19:00", True),
        ("2026-03-03 06:59", True),
        ("2026-03-03 07:00", False),
        ("2026-03-07 06:59", True),  # Saturday: Friday's night
        ("2026-03-07 19:00", False),
        ("2026-03-08 03:00", False),
        ("2026-03-09 03:00", False),  # Monday: Sunday is not a working day
    ],
)
def test_hours_over_midnight_belong_to_the_day_on_which_they_begin(moment, inside):
    at = datetime.fromisoformat(moment).replace(tzinfo=ZoneInfo("Europe/Madrid"))
    assert hours(days=["mon", "tue", "wed", "thu", "fri"]).contain(at) is inside


def test_hours_are_those_of_the_centres_own_zone():
    day = hours(**{"from": "08:00", "until": "18:00"})
    assert day.contain(datetime(2026, 7, 1, 6, 30, tzinfo=ZoneInfo("UTC")))  # 08:30 in Madrid's summer
    assert not day.contain(datetime(2026, 1, 5, 6, 30, tzinfo=ZoneInfo("UTC")))  # 07:30 in winter
    assert str(hours(days=["mon"])) == "mon, 19:00 to 07:00 Europe/Madrid"
