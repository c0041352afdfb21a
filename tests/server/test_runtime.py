"""Flower's simulation runtime itself, with Ray: kills, resumption, and another project's SuperLink at the same time."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from federation.flower.processes import carrying, free_ports, kill
from federation.flower.ray_cluster import find_ray_cluster
from federation.wire.errors import StudyError
from reports.run_record import RunRecord
from scenarios.reader import resolved_yaml

pytestmark = pytest.mark.runtime
CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def reference(tiny, conduct_in_process, tmp_path_factory):
    """results.csv of the in-process engine."""
    done, record = conduct_in_process(tiny("repeats=1"), tmp_path_factory.mktemp("reference") / "run")
    assert done
    return (record.folder / "results.csv").read_bytes()


@pytest.fixture(scope="module")
def once(tiny_text):
    """YAML of the tiny scenario, with one repeat."""
    assert "repeats: 2" in tiny_text
    return tiny_text.replace("repeats: 2", "repeats: 1")


@pytest.fixture
def start(once, patch_cache, tmp_path):
    """Function: start `polycentre run` on the tiny scenario; everything it started is ended afterwards."""
    (tmp_path / "tiny.yaml").write_text(once)
    started = []

    def run(*arguments):
        command = [
            sys.executable,
            "-m",
            "polycentre",
            "run",
            str(tmp_path / "tiny.yaml"),
            "--cache",
            str(patch_cache),
            *map(str, arguments),
        ]
        process = subprocess.Popen(
            command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        started.append(process)
        return process

    yield run
    for process in started:
        kill_tree(process)


def kill_tree(process):
    """SIGKILL to the process, its descendants, and what detached itself but carries their mark."""
    try:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    marks = set()
    for member in family:
        try:
            marks.add(member.environ().get("POLYCENTRE_RUNTIME"))
        except psutil.Error:
            continue
    for member in psutil.process_iter():
        try:
            if member.environ().get("POLYCENTRE_RUNTIME") in marks - {None}:
                family.append(member)
        except psutil.Error:
            continue
    for member in family:
        try:
            member.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    process.wait()


def wait_for(folder, condition, process, timeout_s=240):
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        events = RunRecord.open(folder).events() if (folder / "scenario.yaml").exists() else []
        if condition(events):
            return
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.02)
    raise AssertionError("timed out")


def finished(events, *kinds):
    return Counter(
        e["kind"] for e in events if e["event"] == "unit_finished" and not e["cached"] and e["kind"] in kinds
    )


def marked(processes=None):
    """Homes of the runtimes of which a process is alive, whoever started them; of some processes only."""
    found = set()
    for process in psutil.process_iter() if processes is None else processes:
        try:
            if mark := process.environ().get("POLYCENTRE_RUNTIME"):
                found.add(mark)
        except psutil.Error:
            continue
    return found


def test_ray_gives_the_bytes_of_the_in_process_engine_and_leaves_nothing_behind(start, reference, tmp_path):
    process = start("--out", tmp_path / "run")
    wait_for(tmp_path / "run", lambda events: any(e["event"] == "unit_started" for e in events), process)
    homes = marked(psutil.Process(process.pid).children(recursive=True))
    assert len(homes) == 1, "the check below must have something to find"
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0, out
    assert (tmp_path / "run" / "results.csv").read_bytes() == reference
    assert "work in a centre:" in out and "report.html" in out
    assert not marked() & homes and not any(Path(home).exists() for home in homes)
    workers = {e["worker"] for e in RunRecord.open(tmp_path / "run").events() if e["event"] == "unit_finished"}
    assert len(workers) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("phase", "reached"),
    [
        ("share", lambda events: finished(events, "train_generator").total() >= 1),
        ("learn", lambda events: finished(events, "learn_classifier").total() >= 2),
    ],
)
def test_sigkill_and_resume_gives_the_same_bytes(phase, reached, start, reference, tmp_path):
    process = start("--out", tmp_path / "run")
    wait_for(tmp_path / "run", reached, process)
    kill_tree(process)
    before = RunRecord.open(tmp_path / "run").events()
    assert not (tmp_path / "run" / "results.csv").exists()
    process = start("--out", tmp_path / "run", "--resume")
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0, out
    assert (tmp_path / "run" / "results.csv").read_bytes() == reference
    kept = {
        e["unit"]
        for e in before
        if e["event"] == "unit_finished"
        and e["kind"] in ("train_generator", "synthesise", "learn_classifier", "test_classifier")
    }
    after = RunRecord.open(tmp_path / "run").events()[len(before) :]
    again = {e["unit"] for e in after if e["event"] == "unit_finished" and not e["cached"]}
    assert kept and not kept & again, "a finished unit was computed again"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["train_round", "train_discriminator"])
def test_sigkill_of_a_run_with_federations_and_faults(kind, start, federated, conduct_in_process, tmp_path):
    """Three jobs of ten are lost, one centre goes for good, and everything is killed in the middle, twice."""
    scenario = federated(faults=True)
    done, record = conduct_in_process(scenario, tmp_path / "reference")
    assert done
    (tmp_path / "tiny.yaml").write_text(resolved_yaml(scenario))
    for wanted in (2, 4):
        process = start("--out", tmp_path / "run", *(["--resume"] if wanted > 2 else []))
        wait_for(tmp_path / "run", lambda events, n=wanted: finished(events, kind).total() >= n, process)
        kill_tree(process)
    process = start("--out", tmp_path / "run", "--resume")
    out, _ = process.communicate(timeout=400)
    assert process.returncode == 0, out
    for name in ("results.csv", "convergence.csv", "virtual_time.csv", "federations.json"):
        assert (tmp_path / "run" / name).read_bytes() == (record.folder / name).read_bytes(), name


@pytest.mark.slow
def test_one_worker_gives_the_bytes_of_two(start, reference, tmp_path):
    process = start("--out", tmp_path / "run", "--set", "compute.workers=1")
    out, _ = process.communicate(timeout=400)
    assert process.returncode == 0, out
    assert (tmp_path / "run" / "results.csv").read_bytes() == reference


@pytest.mark.slow  # a whole runtime for one signal
def test_ctrl_c_leaves_a_resumable_run(start, tmp_path):
    process = start("--out", tmp_path / "run")
    wait_for(tmp_path / "run", lambda events: any(e["event"] == "unit_started" for e in events), process)
    os.kill(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 1, out
    assert "--resume" in out and "Traceback" not in out
    assert RunRecord.open(tmp_path / "run").events()[-1]["status"] == "interrupted"


# -- a Ray cluster that exists ---------------------------------------------------------------------------------


@pytest.fixture
def cluster():
    """A Ray cluster of two nodes with a CPU each, both on this machine: (its address, process ids of its raylets)."""
    folder = Path(tempfile.mkdtemp(prefix="ray-"))  # short: Ray puts sockets below it
    (port,) = free_ports(1)
    environment = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "PYTHONPATH")}
    environment |= {"RAY_USAGE_STATS_ENABLED": "0", "POLYCENTRE_TEST_CLUSTER": str(folder)}
    ray = [str(Path(sys.executable).with_name("ray")), "start", "--num-cpus=1", "--node-ip-address=127.0.0.1"]
    ray += ["--object-store-memory=100000000", "--dashboard-agent-listen-port=0"]
    head = ["--head", f"--port={port}", f"--temp-dir={folder}", "--include-dashboard=false"]
    second = [f"--address=127.0.0.1:{port}", "--min-worker-port=20002", "--max-worker-port=29999"]
    try:
        for options in (head, second):
            subprocess.run(
                [*ray, *options],
                env=environment,
                check=True,
                timeout=120,
                capture_output=True,
                stdin=subprocess.DEVNULL,
            )
        ours = carrying("POLYCENTRE_TEST_CLUSTER", str(folder))
        yield f"127.0.0.1:{port}", sorted(process.pid for process in ours if process.name() == "raylet")
    finally:
        kill(carrying("POLYCENTRE_TEST_CLUSTER", str(folder)))
        shutil.rmtree(folder, ignore_errors=True)


def wait_until_free(address, folder, timeout_s=30):
    """Until nothing is in use on a cluster any more, which `find_ray_cluster` asks for."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return find_ray_cluster(address, [folder])
        except StudyError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


@pytest.mark.slow
def test_a_ray_cluster_of_two_nodes_gives_the_same_bytes_and_stays(cluster, start, reference, tmp_path):
    address, raylets = cluster
    assert len(raylets) == 2
    before = marked()
    process = start("--ray", address, "--out", tmp_path / "run")
    worked = set()

    def look(events):
        """A worker of Ray is a child of the raylet of its node."""
        for event in events:
            if event["event"] == "unit_finished" and event["worker"]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    worked.add(psutil.Process(int(event["worker"].rpartition("/")[2])).ppid())
        return len(worked) == 2

    wait_for(tmp_path / "run", look, process)
    below = psutil.Process(process.pid).children(recursive=True)
    (server,) = (child for child in below if any("flwr-simulation" in part for part in child.cmdline()))
    server.suspend()  # the run must not end before the cluster has been looked at
    try:
        with pytest.raises(StudyError, match="0 of the cluster's 2 CPUs are free, but Flower takes all of them"):
            find_ray_cluster(address, [tmp_path])
    finally:
        server.resume()
    out, _ = process.communicate(timeout=400)
    assert process.returncode == 0, out
    assert sorted(worked) == raylets, "both nodes worked, and no other"
    assert (tmp_path / "run" / "results.csv").read_bytes() == reference
    assert marked() <= before, "a process of the run is left"
    assert wait_until_free(address, tmp_path).cpus == 2
    assert all(psutil.pid_exists(raylet) for raylet in raylets)


@pytest.mark.slow
def test_ctrl_c_ends_the_run_and_leaves_the_ray_cluster(cluster, start, tmp_path):
    address, raylets = cluster
    process = start("--ray", address, "--out", tmp_path / "run")
    wait_for(tmp_path / "run", lambda events: any(e["event"] == "unit_started" for e in events), process)
    os.kill(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 1 and f"--ray {address} --out {tmp_path / 'run'} --resume" in out, out
    assert wait_until_free(address, tmp_path).cpus == 2
    assert all(psutil.pid_exists(raylet) for raylet in raylets)
    crowded = start("--ray", address, "--set", "compute.workers=3", "--out", tmp_path / "crowded")
    out, _ = crowded.communicate(timeout=60)
    assert crowded.returncode == 2 and "the Ray cluster has room for 2 (2 nodes with 1 CPU)" in out, out
    assert not (tmp_path / "crowded").exists()


# -- flwr run ------------------------------------------------------------------------------------------------


class FlowerHome:
    """A user's own Flower: home, ports and SuperLink apart from everything else on this machine."""

    def __init__(self, folder):
        self.folder = folder
        http, control = free_ports(2)
        self.environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "FLWR_HOME": str(folder / "flwr"), "FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1", "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(http),
            "FLWR_LOCAL_CONTROL_API_PORT": str(control), "POLYCENTRE_RUNTIME": str(folder),
        }  # fmt: skip

    def run(self, app, *options, cwd):
        return subprocess.run(
            ["flwr", "run", str(app), *options],
            cwd=cwd,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=400,
        )

    def stop(self):
        for process in psutil.process_iter():
            try:
                if process.environ().get("POLYCENTRE_RUNTIME") == str(self.folder) and process.pid != os.getpid():
                    process.kill()
            except psutil.Error:
                continue


@pytest.fixture
def flower(tmp_path):
    home = FlowerHome(tmp_path)
    yield home
    home.stop()


@pytest.fixture
def another_project(tmp_path):
    """A Flower project with packages `server` and `clients`, as any tutorial has them."""
    folder = tmp_path / "another"
    for package, text in {
        "server": "from flwr.serverapp import ServerApp\napp = ServerApp()\n@app.main()\ndef main(grid, context):\n    pass\n",
        "clients": "from flwr.clientapp import ClientApp\napp = ClientApp()\n",
    }.items():
        (folder / package).mkdir(parents=True)
        (folder / package / "__init__.py").touch()
        (folder / package / "app.py").write_text(text)
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "another"\nversion = "1.0.0"\ndependencies = ["flwr"]\n'
        '[tool.flwr.app]\npublisher = "someone"\n[tool.flwr.app.components]\nserverapp = "server.app:app"\nclientapp = "clients.app:app"\n'
    )
    return folder


@pytest.mark.slow
def test_flwr_run_completes_on_flowers_default_of_two_nodes(flower, once, patch_cache, reference, tmp_path):
    (tmp_path / "tiny.yaml").write_text(once)
    config = f'scenario="{tmp_path / "tiny.yaml"}" cache="{patch_cache}"'
    done = flower.run(CHECKOUT, "--stream", "--run-config", config, cwd=CHECKOUT)
    runs = list((patch_cache / "runs").glob("tiny-*"))
    try:
        assert len(runs) == 1, done.stdout + done.stderr
        assert RunRecord.open(runs[0]).events()[-1]["status"] == "completed", done.stdout[-3000:]
        assert (runs[0] / "results.csv").read_bytes() == reference
        assert (runs[0] / "report.html").exists()
    finally:
        shutil.rmtree(patch_cache / "runs", ignore_errors=True)


@pytest.mark.slow
def test_another_projects_superlink_is_named_and_does_not_disturb_polycentre_run(
    flower, another_project, start, once, patch_cache, reference, tmp_path
):
    """`flwr run` in the other project starts a SuperLink in its folder, which every later `flwr run` uses."""
    flower.run(another_project, cwd=another_project)
    (tmp_path / "tiny.yaml").write_text(once)
    config = f'scenario="{tmp_path / "tiny.yaml"}" cache="{patch_cache}"'
    done = flower.run(CHECKOUT, "--stream", "--run-config", config, cwd=CHECKOUT)
    text = done.stdout + done.stderr
    assert f"was started in {another_project}" in text and "stop that SuperLink" in text, text[-3000:]
    process = start("--out", tmp_path / "run")  # while that SuperLink is still running
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0, out
    assert (tmp_path / "run" / "results.csv").read_bytes() == reference
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["code"]["folder"] == str(CHECKOUT)
