"""Exit statuses and one-line errors of the command line, in this process; nothing here starts Flower."""

import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import typer.main
import yaml
from PIL import Image
from typer.testing import CliRunner

from polycentre import command_line
from polycentre.engines import ENGINES


@pytest.fixture
def run(monkeypatch, tmp_path, capfd, patch_cache):
    """Function: call `polycentre ARGUMENTS` as a user would; returns (status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POLYCENTRE_CACHE", str(patch_cache))
    monkeypatch.setenv("COLUMNS", "250")

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["polycentre", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            command_line.main()
        out, err = capfd.readouterr()
        return end.value.code, out, err

    return call


@pytest.fixture
def scenario(tmp_path, tiny_text):
    """Function: write the tiny scenario with changed places; returns its file."""

    def write(**places):
        tree = yaml.safe_load(tiny_text)
        for path, value in places.items():
            *parents, last = path.split("__")
            place = tree
            for parent in parents:
                place = place[parent]
            place[last] = value
        file = tmp_path / "scenario.yaml"
        file.write_text(yaml.safe_dump(tree, sort_keys=False))
        return file

    return write


def one_line(err):
    lines = err.strip().splitlines()
    assert len(lines) == 1 and "Traceback" not in err, err
    return lines[0]


def test_scenarios_lists_one_line_each(run):
    status, out, _ = run("scenarios")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == [
        "demo", "derm_federated_2022", "derm_federated_small", "dm_gan_2023", "dm_gan_small", "dp_mcgan_2024",
        "ham10000_seven_classes", "ham10000_three_centres", "iwbi2022_mammography", "many_centres", "mini_mias_simulated_centres",
        "pggan_mammograms_2018", "pggan_mammograms_small", "rectangles", "strategies",
    ]  # fmt: skip


def test_validate_prints_the_plan(run, scenario):
    status, out, _ = run("validate", scenario())
    assert status == 0
    for word in ("b_gan", "flow_matching", "one_shot", "pooled", "train a classifier", "34 units of work"):
        assert word in out


def test_the_command_at_the_end_of_a_plan_runs_what_was_planned(run, scenario, monkeypatch):
    file = scenario()
    _, out, _ = run("validate", file, "--set", "study.schedule={real: 3, mix: 2}", "--set", "name=changed")
    _, _, command = out.splitlines()[-1].partition("run it with: polycentre ")
    monkeypatch.setitem(ENGINES, "inprocess", lambda *_: None)  # nothing is computed
    run(*shlex.split(command), "--engine", "inprocess", "--out", "planned")
    planned = yaml.safe_load(Path("planned/scenario.yaml").read_text())
    assert planned["name"] == "changed" and planned["study"]["schedule"]["real"] == 3


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("run", "nowhere.yaml"), "nowhere.yaml: no such file; shipped scenarios: demo"),
        (("validate", "demo", "--set", "repeats"), "must look like key.path=value"),
        (("validate", "demo", "--set", "study.synthetics=3"), "study.synthetics: unknown key; known keys:"),
        (("run", "demo", "--set", "compute.workers=500"), "this machine has"),
        (("run", "demo", "--resume"), "--resume: no run at runs/latest"),
        (("report", "nothing-here"), "is not a run folder"),
        (
            ("run", "demo", "--deployment", "hospitals"),
            "no deployment 'hospitals': there is no deployments/hospitals/deployment.yaml (known: loopback",
        ),
        (("run", "demo", "--deployment", "loopback", "--engine", "ray"), "give one of them"),
        (
            ("run", "demo", "--ray", "auto", "--engine", "inprocess"),
            "which --engine inprocess does not use; give one of them",
        ),
        (
            ("run", "demo", "--ray", "auto", "--deployment", "loopback"),
            "which --deployment does not use; give one of them",
        ),
        (("run", "demo", "--precision-of", "nothing-here"), "nothing-here is not a run folder"),
        (("run", "demo", "--precision-of", "x", "--resume"), "in the precision that the run itself chose"),
        (
            ("run", "demo", "--precision-of", "x", "--set", "compute.precision=fp32"),
            "--precision-of would change nothing",
        ),
        (("run", "demo", "--ray", "127.0.0.1:1"), "--ray 127.0.0.1:1: nothing answers there"),
        (("run", "demo", "--deployment", "loopback"), "pooled moves real patches, which a deployed centre refuses"),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments, expected, run, tmp_path):
    status, _, err = run(*arguments)
    assert status == 2
    assert expected in one_line(err)
    assert not (tmp_path / "runs").exists(), "nothing half-written"


def test_more_nodes_than_this_machine_can_hold(run, scenario, monkeypatch):
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=2 * 2**30, total=2**33))
    arguments = ("run", scenario(), "--deployment", "loopback", "--set", "arms.pooled=null")
    status, _, err = run(*arguments)
    assert status == 2 and "3 nodes need about 3.3 GiB, but only 2.0 GiB are free" in one_line(err)
    # Workers are the simulation's: each centre of a deployment has its own machine.
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=8 * 2**30, total=2**33))
    monkeypatch.setattr("polycentre.run.over_nodes", lambda name: lambda record, *_: record.folder)
    assert run(*arguments, "--set", "compute.workers=500")[0] == 1


def test_the_remedy_for_a_pooled_arm_works(run, scenario, monkeypatch):
    """Up to the moment at which nodes would be started."""
    monkeypatch.setattr("polycentre.run.over_nodes", lambda name: lambda record, *_: record.folder)
    _, _, err = run("run", scenario(), "--deployment", "loopback")
    (remedy,) = re.findall(r"--set \S+null", one_line(err))
    status, out, _ = run("run", scenario(), "--deployment", "loopback", *remedy.split())
    assert status == 1 and "--deployment loopback --out" in out, "how to resume names the deployment"


def test_an_existing_run_folder_is_not_overwritten(run, scenario, tmp_path):
    file = scenario(study__minimum_positives=500)
    status, _, err = run("run", file, "--engine", "inprocess", "--out", tmp_path / "out")
    assert status == 2 and "500 are needed" in one_line(err)
    status, _, err = run("run", file, "--engine", "inprocess", "--out", tmp_path / "out")
    assert status == 2 and "resume" in one_line(err)


def test_in_process_run_writes_everything_and_nothing_else(run, scenario, tmp_path):
    file = scenario(
        repeats=1, arms={"real": {"strategy": "local"}, "b_gan": {"strategy": "one_shot", "generators": ["b_gan"]}}
    )
    status, out, err = run("run", file, "--engine", "inprocess", "--out", tmp_path / "runs" / "one")
    assert status == 0, err
    assert "report.html" in out and "work in a centre:" in out and "AUROC" in out
    folder = tmp_path / "runs" / "one"
    for name in (
        "scenario.yaml",
        "environment.json",
        "events.jsonl",
        "results.csv",
        "predictions.csv",
        "table.md",
        "report.html",
    ):
        assert (folder / name).is_file(), name
    assert (tmp_path / "runs" / "latest").resolve() == folder
    assert {p.name for p in tmp_path.iterdir()} == {"runs", "scenario.yaml"}
    status, out, _ = run("report", folder)
    assert status == 0 and "report.html" in out


def test_details_of_bad_data_are_shown_in_simulation(run, scenario, tmp_path):
    """The server learns a code; the command line, on the same box, also shows the centre's own log."""
    data = tmp_path / "images"
    data.mkdir()
    (data / "metadata.csv").write_text("image,patient_id,malignant\n" + "".join(f"{n}.png,p1,1\n" for n in "abcde"))
    for name in "BC":  # the others' data are in order, and small
        (tmp_path / name).mkdir()
        rows = ["image,patient_id,malignant"]
        for number in range(12):
            pixels = np.random.default_rng(ord(name) + number).integers(0, 256, (32, 32), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
            rows.append(f"{number}.png,p{number},{number % 2}")
        (tmp_path / name / "metadata.csv").write_text("\n".join(rows))
    file = scenario(
        centres__A__data={"source": "folder", "path": str(data)},
        centres__B__data={"source": "folder", "path": str(tmp_path / "B")},
        centres__C__data={"source": "folder", "path": str(tmp_path / "C")},
        task={"label": "malignancy", "whole_image": True, "image_size": 32},
    )
    status, out, err = run("run", file, "--engine", "inprocess", "--out", tmp_path / "out")
    assert status == 2
    line = one_line(err)
    assert "centre 'A'" in line and "without an image file" in line and "copy the file or remove the row" in line
    assert "a.png" in out, "file and row, from the centre's own log"
    listed = tmp_path / "out" / "centres" / "A" / "problems.csv"
    assert f"5 problems of the data, all of them listed in {listed}" in out
    rows = listed.read_text().splitlines()
    assert len(rows) == 6 and rows[5].startswith("row_without_file,metadata.csv row 6: file e.png does not exist")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (
            "study.classifiers=[{model: cnn_small, pretrained: /nope.pth}]",
            "cnn_small: cannot read weights from /nope.pth",
        ),
        ("generators.p.package=/nowhere", "generators.p.package: /nowhere is not a generator package"),
        ("centres.A.data={source: folder, path: /nowhere}", "centres.A.data.path: no folder /nowhere"),
    ],
)
def test_files_that_a_scenario_names_are_checked_before_anything_starts(override, expected, run, scenario, tmp_path):
    for command in ("validate", "run"):
        status, _, err = run(command, scenario(), "--set", override)
        assert status == 2
        assert expected in one_line(err)
        assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"image_size": 64}, "makes 64 px x 1 images (uint8), but task 'lesion' has 32 px x 1 images (uint8)"),
        ({"image_size": [48, 32]}, "makes 48x32 px x 1 images (uint8), but task 'lesion' has 32 px x 1 images (uint8)"),
        ({"storage": "uint16"}, "makes 32 px x 1 images (uint16), but task 'lesion' has 32 px x 1 images (uint8)"),
        ({}, "makes lesion, but arm 'p' shares healthy of it, too; set classes there, or generators.p.makes: [lesion]"),
        (
            {"classes": ["lesion", "healthy"]},
            "was trained with the classes lesion, healthy, but task 'lesion' has healthy, lesion",
        ),
        (
            {"classes": ["Healthy", "lesion"]},
            "was trained with the classes Healthy, lesion, but task 'lesion' has healthy, lesion",
        ),
    ],
)
def test_packages_must_fit_their_tasks_and_arms(run, scenario, tmp_path, changed, words):
    from models import GeneratorPackage, GeneratorSpec

    values = {"model": "dcgan", "image_size": 32, "classes": ["healthy", "lesion"]} | changed
    spec = GeneratorSpec.model_validate(values | {"hyper_parameters": {"width": 8}, "training": {"steps": 1}})
    GeneratorPackage(spec, spec.build(0).shared_arrays(), {}).write(tmp_path / "p")
    file = scenario(
        generators__p={"package": str(tmp_path / "p")},
        arms__p={"strategy": "one_shot", "generators": ["p"], "classes": "both"},
    )
    status, _, err = run("validate", file)
    assert status == 2 and words in err and len(err.splitlines()) == 1


def test_a_package_is_used_as_a_generator_is(run, scenario, tmp_path):
    from models import GeneratorPackage, GeneratorSpec

    spec = GeneratorSpec.model_validate(
        {
            "model": "dcgan",
            "image_size": 32,
            "classes": ["healthy", "lesion"],
            "hyper_parameters": {"width": 8},
            "training": {"steps": 1},
        }
    )
    GeneratorPackage(spec, spec.build(0).shared_arrays(), {}).write(tmp_path / "p")
    # Also: a generator may be called like one of our own sources.
    file = scenario(
        generators={"real": {"package": str(tmp_path / "p")}},
        arms={"own": {"strategy": "local"}, "b": {"strategy": "one_shot", "generators": ["real"]}}, study__test_on=[], repeats=1,
    )  # fmt: skip
    status, out, err = run("run", file, "--engine", "inprocess", "--out", tmp_path / "out")
    assert status == 0, err
    from reports.run_record import RunRecord

    results = RunRecord.open(tmp_path / "out").results().set_index(["arm", "metric"])["value"]
    assert results["own", "auroc"] != results["b", "auroc"] or results["own", "auprc"] != results["b", "auprc"]


def test_more_images_than_there_are(run, scenario, tmp_path):
    status, _, err = run("run", scenario(study__real_images=[5000]), "--engine", "inprocess", "--out", tmp_path / "out")
    assert status == 2 and "study.real_images asks for 5000; lower it" in one_line(err)


def test_doctor_reports_this_machine(run):
    status, out, _ = run("doctor")
    assert status == 0, out
    assert "torch" in out and "nothing is missing" in out


def test_an_installation_without_ray_says_so_and_does_what_needs_none(run, scenario, monkeypatch, tmp_path):
    from server import environment

    def missing(package):
        if package == "ray":
            raise environment.PackageNotFoundError(package)
        return "1.0"

    monkeypatch.setattr("polycentre.run.find_spec", lambda _: None)
    monkeypatch.setattr(environment, "version", missing)
    status, out, _ = run("doctor")
    assert status == 0 and "a node needs none" in out, out
    for options in ((), ("--engine", "ray"), ("--ray", "10.0.0.1:6379")):
        status, _, err = run("run", scenario(), *options, "--out", tmp_path / "out")
        assert status == 2 and "ray is not installed" in one_line(err) and not (tmp_path / "out").exists()
    monkeypatch.setitem(ENGINES, "inprocess", lambda *_: None)  # nothing is computed
    assert "ray is not installed" not in run("run", scenario(), "--engine", "inprocess", "--out", tmp_path / "out")[2]


def help_of(*words):
    """{what is listed: its words} in the help of a command: its options, or the commands below it."""
    out = CliRunner().invoke(command_line.cli, [*words, "--help"], env={"COLUMNS": "250", "NO_COLOR": "1"}).output
    rows = [re.split(r"\s{2,}", line.strip("│ ")) for line in out.splitlines() if line.startswith("│")]
    return {row[0].strip("* "): " ".join(row[1:]) for row in rows}


def test_help_lists_every_command_with_what_it_does():
    commands = typer.main.get_command(command_line.cli).commands
    listed = help_of()
    assert set(commands) == {"scenarios", "validate", "data", "run", "report", "doctor", "centre", "deploy"}
    assert all(len(listed.get(name, "")) > 20 for name in commands), listed


@pytest.mark.parametrize(("option", "words"), [
    ("--set", "KEY=VALUE"), ("--resume", "Go on with the run"), ("--deployment", "real nodes"), ("--ray", "HOST:PORT"),
    ("--engine", "[ray|inprocess]"),
])  # fmt: skip
def test_help_explains_an_option(option, words):
    assert words in help_of("run")[option]
