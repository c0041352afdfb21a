"""The trial of docker-compose.yml on a real engine: isolation, a study, and what dies in the middle of it."""

import hashlib
import json
import socket
import ssl
import time
from pathlib import Path

import pytest
import yaml

from reports.run_record import RunRecord

pytestmark = [pytest.mark.slow, pytest.mark.docker]

# Two federations and a shared generator, small: what is tested is the way, not the models.
SCENARIO = """
name: docker-trial
seed: 3
repeats: 1
centres:
  A: {roles: [receiver, provider], data: {source: phantom, patients: 24, scanner: digital}}
  B: {roles: [provider], data: {source: phantom, patients: 24, scanner: film}}
  C: {roles: [provider], data: {source: phantom, patients: 24, scanner: film}}
task: {name: lesion, label: lesion, image_size: 32}
generators:
  b_gan: {centre: B, model: dcgan, width: 8, batch_size: 8, steps: STEPS}
arms:
  real:    {strategy: local}
  b_gan:   {strategy: one_shot, generators: [b_gan]}
  average:
    {strategy: fedavg_gan, model: dcgan, width: 8, batch_size: 8, rounds: 2, local_steps: LOCAL, quorum: 2, fidelity: {spaces: []}}
study:
  {classifiers: [cnn_small], synthetic: 16, minimum_positives: 2, schedule: {real: 2, mix: 2}, test_on: [A, C],
   training: {validate_every: 2}}
compute: {workers: 2, threads_per_job: 1, precision: fp32}
"""


@pytest.fixture
def scenario(tmp_path):
    def write(steps=4, local=4):
        file = tmp_path / "trial.yaml"
        file.write_text(SCENARIO.replace("STEPS", str(steps)).replace("LOCAL", str(local)))
        return file

    return write


def generators(folder):
    return {
        file.parent.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(Path(folder).glob("generators/*/generator.safetensors"))
    }


def finish(process, timeout=900):
    out, _ = process.communicate(timeout=timeout)
    return process.returncode, out


def wait_for(process, out, condition, what, timeout_s=400.0):
    """Until the record of a run shows something."""
    deadline = time.monotonic() + timeout_s
    while True:
        events = RunRecord.open(out).events() if (out / "scenario.yaml").exists() else []
        if condition(events):
            return events
        assert process.poll() is None, process.stdout.read()[-3000:]
        assert time.monotonic() < deadline, f"timed out waiting until {what}"
        time.sleep(0.5)


def at_work(centre, kind):
    """Whether a centre has been sent a job of a kind that it has not answered."""

    def condition(events):
        units = {
            e["unit"] for e in events if e["event"] == "unit_started" and e["centre"] == centre and e["kind"] == kind
        }
        return bool(units - {e["unit"] for e in events if e["event"] == "unit_finished"})

    return condition


# -- what a container can and cannot do ----------------------------------------------------------------------------


def test_a_node_is_not_root_and_writes_nowhere_but_in_its_workspace(compose):
    assert compose.inside("node-a", "id", "-u")[1].strip() == "1000"
    for place in ("/data", "/etc/polycentre", "/opt/polycentre", "/"):
        status, out = compose.inside("node-a", "touch", f"{place}/x")
        assert status != 0 and "Read-only file system" in out, place
    assert compose.inside("node-a", "touch", "/var/lib/polycentre/x")[0] == 0


def test_a_node_reaches_the_superlinks_node_door_and_nothing_else(compose):
    def connects(host, port):
        code = f"import socket; socket.create_connection(({host!r}, {port}), 4)"
        return compose.inside("node-a", "python", "-c", code)[0] == 0

    other = json.loads(compose.docker("inspect", compose.container("node-b")))[0]["NetworkSettings"]["Networks"]
    (address,) = [network["IPAddress"] for network in other.values()]
    assert connects("superlink", 8000)
    assert not connects("node-b", 9094) and not connects(address, 9094)
    assert not connects("1.1.1.1", 443), "an internal network has no way out"
    # The operator's door can be connected to from the hospitals' networks, so it must not let them in.
    code = ("import httpx, ssl; c = ssl.create_default_context(cafile='/etc/polycentre/ca.crt'); "
            "print(httpx.post('https://superlink:8000/v1/control/list-runs', verify=c).status_code)")  # fmt: skip
    assert compose.inside("node-a", "python", "-c", code)[1].strip() == "403"
    assert not connects("superlink", 8001), "hospitals reach the operator's door"


def test_between_nodes_and_superlink_there_is_tls_only(compose):
    code = ("import socket; s = socket.create_connection(('superlink', 8000), 4); s.sendall(b'GET /health HTTP/1.0\\r\\n\\r\\n'); "
            "s.settimeout(4); print(s.recv(100))")  # fmt: skip
    assert "200" not in compose.inside("node-a", "python", "-c", code)[1]
    context = ssl.create_default_context(cafile=str(compose.folder / "deployments/hospitals/ca.crt"))
    with (
        socket.create_connection(("127.0.0.1", compose.operator_port), 5) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as secured,
    ):
        assert secured.version() == "TLSv1.3"


def test_no_secret_is_in_the_image_and_no_cuda(compose):
    layers = compose.docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", compose.image)
    assert "operator.secret" not in layers and "BEGIN" not in layers
    search = (
        "find / -xdev \\( -name '*.key' -o -name '*.secret' -o -name 'id_*' \\) -not -path '/proc/*' -not -path '*/site-packages/*' "
        "-not -path '/usr/share/*'; /opt/venv/bin/pip list 2>/dev/null | grep -i ^nvidia || true"
    )
    found = compose.docker(
        "run", "--rm", "--user", "root", "--network", "none", "--entrypoint", "sh", compose.image, "-c", search
    )
    assert found.strip() == ""


def test_every_service_is_healthy(compose):
    deadline = time.monotonic() + 120
    services = ("superlink", "node-a", "node-b", "node-c")
    while any(compose.health(service) != "healthy" for service in services):
        assert time.monotonic() < deadline, {service: compose.health(service) for service in services}
        time.sleep(1.0)


# -- a study -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def simulated(compose, tmp_path_factory):
    """Function: the run folder of a scenario simulated in the same image on the same machine."""
    known = {}

    def run(file):
        text = file.read_text()
        if text not in known:
            name, place = f"{compose.project}-simulated-{len(known)}", "/var/lib/polycentre"
            command = [
                "run",
                f"{place}/trial.yaml",
                "--engine",
                "inprocess",
                "--out",
                f"{place}/run",
                "--cache",
                f"{place}/cache",
            ]
            compose.docker("create", "--name", name, "--network", "none", compose.image, *command)
            try:
                compose.docker("cp", str(file), f"{name}:{place}/trial.yaml")
                compose.docker("start", "-a", name, timeout=900)
                known[text] = tmp_path_factory.mktemp("simulated") / "run"
                compose.docker("cp", f"{name}:{place}/run", str(known[text]))
            finally:
                compose.docker("rm", "-f", "-v", name)
        return known[text]

    return run


@pytest.fixture
def ends_like_its_simulation(simulated, tmp_path):
    """Function: wait for the end of a run under `tmp_path / "run"`, and compare its table with that of the simulation."""

    def check(process, file):
        status, out = finish(process)
        assert status == 0, out[-3000:]
        expected = simulated(file)
        assert (tmp_path / "run" / "results.csv").read_bytes() == (expected / "results.csv").read_bytes()
        return out, expected

    return check


def test_a_study_over_three_nodes_gives_the_generators_of_a_simulation(
    compose, scenario, ends_like_its_simulation, tmp_path
):
    file = scenario()
    out, expected = ends_like_its_simulation(compose.run(file, tmp_path / "run"), file)
    assert "report.html" in out and (tmp_path / "run" / "report.html").exists()
    assert generators(tmp_path / "run") == generators(expected) != {}
    # Each hospital's own record of what left it.
    status, log = compose.inside("node-b", "polycentre", "centre", "log", "/etc/polycentre/centre.yaml")
    assert status == 0 and "train_generator" in log


@pytest.mark.parametrize("kind", ["survey_data", "train_generator", "train_round", "learn_classifier"])
def test_a_node_is_killed_in_each_phase_and_comes_back(kind, compose, scenario, ends_like_its_simulation, tmp_path):
    file = scenario(steps=400, local=150)
    process = compose.run(file, tmp_path / "run")
    centre = {"train_generator": "B", "learn_classifier": "A"}.get(kind, "C")
    service = f"node-{centre.lower()}"
    wait_for(process, tmp_path / "run", at_work(centre, kind), f"{centre} was asked for {kind}")
    compose.docker("kill", compose.container(service))
    compose("start", service)
    ends_like_its_simulation(process, file)


@pytest.mark.parametrize("down_s", [5, 60])
def test_the_superlink_is_killed_and_nothing_is_lost(down_s, compose, scenario, ends_like_its_simulation, tmp_path):
    file = scenario(steps=400, local=150)
    process = compose.run(file, tmp_path / "run")
    wait_for(process, tmp_path / "run", at_work("B", "train_generator"), "B was training")
    before = [e["unit"] for e in RunRecord.open(tmp_path / "run").events() if e["event"] == "unit_finished"]
    compose.docker("kill", compose.container("superlink"))
    time.sleep(down_s)
    compose("start", "superlink")
    # One that is back before anybody asks for it may not even be missed; otherwise the run stops and can be resumed.
    if process.wait(900):
        assert "--resume" in (out := process.stdout.read()), out[-3000:]
        compose.wait_for_nodes(3)
        process = compose.run(file, tmp_path / "run", "--resume")
    ends_like_its_simulation(process, file)
    events = RunRecord.open(tmp_path / "run").events()
    done = [
        e["unit"] for e in events if e["event"] == "unit_finished" and not e["cached"] and e["kind"] != "survey_data"
    ]
    assert len(done) == len(set(done)) and before, "what was finished is not done again"


def test_a_hospitals_line_is_cut_and_healed(compose, scenario, ends_like_its_simulation, tmp_path):
    file = scenario(steps=400, local=150)
    process = compose.run(file, tmp_path / "run")
    wait_for(process, tmp_path / "run", at_work("B", "train_generator"), "B was training")
    network = f"{compose.project}_b"
    compose.docker("network", "disconnect", network, compose.container("node-b"))
    time.sleep(20)
    compose.docker("network", "connect", network, compose.container("node-b"))
    ends_like_its_simulation(process, file)


def test_a_slow_and_lossy_line_only_takes_longer(compose, scenario, ends_like_its_simulation, tmp_path):
    """Half a second there and back, 2 Mbit/s, 1 % of the packets lost, at B."""
    index = compose.inside("node-b", "cat", "/sys/class/net/eth0/iflink")[1].strip()
    links = [f.parent.name for f in Path("/sys/class/net").glob("*/ifindex") if f.read_text().strip() == index]
    slow = ["tc", "qdisc", "add", "dev", *links, "root", "netem", "delay", "250ms", "rate", "2mbit", "loss", "1%"]
    status, out = compose.host(*slow)
    if status:
        pytest.skip(f"this machine cannot slow a line down ({out.strip()[:100]})")
    try:
        file = scenario()
        ends_like_its_simulation(compose.run(file, tmp_path / "run"), file)
    finally:
        compose.host("tc", "qdisc", "del", "dev", *links, "root")


def test_a_node_that_stays_away_leaves_the_others_their_quorum(compose, scenario, tmp_path):
    file = scenario(local=150)
    tree = yaml.safe_load(file.read_text())
    tree["arms"] = {name: tree["arms"][name] for name in ("real", "average")}
    del tree["generators"]
    file.write_text(yaml.safe_dump(tree, sort_keys=False))
    process = compose.run(file, tmp_path / "run")
    try:
        wait_for(process, tmp_path / "run", at_work("C", "train_round"), "C was training")
        compose.docker("kill", compose.container("node-c"))
        status, out = finish(process)
        federations = json.loads((tmp_path / "run" / "federations.json").read_text())
        assert any(entry["lost"] or entry["gone"] for entry in federations), federations
        assert "average" in (tmp_path / "run" / "results.csv").read_text()
    finally:
        compose("start", "node-c")
        compose.wait_for_nodes(3)
