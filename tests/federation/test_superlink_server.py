"""The SuperLink's two doors, over real TLS: Flower itself makes none of these refusals."""

import contextlib
import http.client
import socket
import ssl
import subprocess
import threading
import time

import httpx
import pytest

from federation.flower.certificates import create_authority, create_node_key, create_secret, issue_server_certificate
from federation.flower.flower_command import FlowerCommand
from federation.flower.processes import OwnProcesses, free_ports
from federation.flower.superlink import SuperLink
from federation.flower.superlink_health import Health, ask, clock_problem
from federation.wire.errors import StudyError


@pytest.fixture(scope="module")
def processes():
    own = OwnProcesses()
    yield own
    own.stop()


@pytest.fixture(scope="module")
def link(processes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("link")
    create_authority(folder / "authority")
    issue_server_certificate(folder / "authority", folder, ["127.0.0.1", "localhost"])
    create_secret(folder / "secret")
    started = SuperLink(processes, folder / "superlink.log")
    started.start(folder, folder / "secret", folder / "state.db")
    started.folder = folder
    return started


@pytest.fixture(scope="module")
def operator(link):
    """Flower's command line at the operator's door; each question starts a process."""
    own = OwnProcesses()
    yield FlowerCommand(own, link.operator_address, link.folder / "ca.crt", link.folder / "operator.log")
    own.stop()


@pytest.fixture(scope="module")
def post(link):
    context = ssl.create_default_context(cafile=str(link.folder / "ca.crt"))
    return lambda address, path, **options: httpx.post(
        f"https://{address}{path}", verify=context, timeout=10, **options
    )


def test_only_the_operators_door_serves_control_and_runtime(link, post):
    for path in ("/v1/control/register-node", "/v1/control/start-run", "/v1/runtime/acquire-task", "/docs", "/openapi.json",
                 "/v1/fleet/../control/start-run", "//v1/control/list-runs", "/v1/fleet"):  # fmt: skip
        answer = post(link.address, path, content=b"")
        assert answer.status_code == 403 and "this port serves only nodes" in answer.text, path
    assert post(link.operator_address, "/v1/control/list-runs", content=b"").status_code != 403


def test_the_operator_registers_a_key_over_the_one_door_and_not_over_the_other(link, operator, tmp_path):
    own = OwnProcesses()
    try:
        create_node_key(tmp_path / "b.key")
        by_hospital = FlowerCommand(own, link.address, link.folder / "ca.crt", tmp_path / "log")
        with pytest.raises(StudyError, match="flwr supernode failed"):
            by_hospital.register(tmp_path / "b.key.pub", "B")
    finally:
        own.stop()
    # The SuperLink would refuse to register a key again.
    number = operator.register(tmp_path / "b.key.pub", "B")
    assert number in [node["node-id"] for node in operator.nodes()]


def test_a_request_that_declares_too_much_is_refused_before_it_is_read(link):
    context = ssl.create_default_context(cafile=str(link.folder / "ca.crt"))
    connection = http.client.HTTPSConnection("127.0.0.1", link.port, context=context, timeout=10)
    connection.putrequest("POST", "/v1/fleet/push-object")
    connection.putheader("Content-Length", str(2**40))
    connection.endheaders(b"x" * 100)  # of a terabyte
    answer = connection.getresponse()
    assert answer.status == 413 and b"at most 67108864 bytes" in answer.read()


def test_a_request_that_declares_nothing_is_cut_off(link, post):
    def endless():
        for _ in range(200):
            yield b"x" * 2**20

    try:
        answer = post(
            link.address, "/v1/fleet/push-object", content=endless(), headers={"content-type": "application/protobuf"}
        )
    except (httpx.WriteError, httpx.RemoteProtocolError):
        return  # closed while we were still sending
    assert answer.status_code == 413


def test_plain_http_is_not_answered(link):
    for address in (link.address, link.operator_address):
        with pytest.raises(httpx.HTTPError):
            httpx.get(f"http://{address}/health", timeout=5)


def test_old_tls_is_not_spoken(link):
    context = ssl.create_default_context(cafile=str(link.folder / "ca.crt"))
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    with socket.create_connection(("127.0.0.1", link.port), 5) as raw, pytest.raises((ssl.SSLError, OSError)):
        context.wrap_socket(raw, server_hostname="localhost")


def test_health_says_what_is_wrong(link, tmp_path):
    found = ask(link.address, link.folder / "ca.crt")
    assert found.problem == "" and abs(found.clock_offset_s) < 5
    create_authority(tmp_path / "other")
    assert "does not come from the authority" in ask(link.address, tmp_path / "other" / "ca.crt").problem
    assert "no root certificate at" in ask(link.address, tmp_path / "none.crt").problem
    assert "does not answer" in ask("127.0.0.1:9", link.folder / "ca.crt").problem
    (tmp_path / "empty.crt").write_text("")
    assert "does not work with TLS" in ask(link.address, tmp_path / "empty.crt").problem


def test_an_expired_certificate_is_named(tmp_path):
    create_authority(tmp_path / "authority")
    issue_server_certificate(tmp_path / "authority", tmp_path, ["127.0.0.1"], days=-1)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "superlink.crt", tmp_path / "superlink.key")
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            connection, _ = server.accept()
            with contextlib.suppress(ssl.SSLError), connection:
                context.wrap_socket(connection, server_side=True)

        threading.Thread(target=serve, daemon=True).start()
        assert "has expired" in ask(f"127.0.0.1:{server.getsockname()[1]}", tmp_path / "ca.crt").problem


def test_a_superlink_that_does_not_answer_in_time_is_named_with_its_log(processes, link, tmp_path):
    slow = SuperLink(processes, tmp_path / "superlink.log")
    with pytest.raises(StudyError, match=r"did not answer within 0 s; see .*superlink\.log"):
        slow.start(link.folder, link.folder / "secret", tmp_path / "state.db", timeout_s=0)
    assert slow.alive
    slow.kill()
    assert not slow.alive


def test_clocks():
    assert clock_problem(None) == clock_problem(2.0) == clock_problem(-59.0) == ""
    assert clock_problem(4.0) == "this machine's clock is 4 s ahead of the SuperLink's; set it (NTP)"
    assert clock_problem(-90.0) == "this machine's clock is 90 s behind the SuperLink's; set it (NTP)"
    for off_s in (6.0, 7200.0, -306.0, -7200.0):
        assert "the SuperLink refuses this node until the clock is right" in clock_problem(off_s), off_s
    assert Health().problem == ""


def node(link, processes, folder, key, root, log):
    """A SuperNode with this key that trusts this authority."""
    command = ["flower-supernode", "--superlink", link.address, "--root-certificates", str(root), "--host", "127.0.0.1",
               "--port", str(free_ports(1)[0]), "--auth-supernode-private-key", str(key), "--max-retries", "1"]  # fmt: skip
    return processes.start(command, log, cwd=folder, environment={"FLWR_HOME": str(folder)})


def test_a_node_whose_key_nobody_registered_does_not_get_in(link, operator, processes, tmp_path):
    create_node_key(tmp_path / "stranger.key")
    process = node(link, processes, tmp_path, tmp_path / "stranger.key", link.folder / "ca.crt", tmp_path / "log")
    try:
        status = process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        raise AssertionError(f"it went on: {(tmp_path / 'log').read_text()}") from None
    assert status != 0 and "Failed to activate SuperNode" in (tmp_path / "log").read_text()
    assert all(entry["status"] != "online" for entry in operator.nodes())


def test_a_node_does_not_talk_to_a_superlink_of_another_authority(link, processes, tmp_path):
    create_authority(tmp_path / "other")
    create_node_key(tmp_path / "b.key")
    process = node(link, processes, tmp_path, tmp_path / "b.key", tmp_path / "other" / "ca.crt", tmp_path / "log")
    deadline = time.monotonic() + 30
    while "CERTIFICATE_VERIFY_FAILED" not in (tmp_path / "log").read_text() and time.monotonic() < deadline:
        time.sleep(0.2)
    process.kill()
    assert "CERTIFICATE_VERIFY_FAILED" in (tmp_path / "log").read_text()


# -- who a request says that it is from, and when -------------------------------------------------------------------


@pytest.fixture(scope="module")
def signed(link, operator, post, tmp_path_factory):
    """Function: try to join as a registered node, with a signed time that is off; returns the status."""
    from base64 import b64encode
    from datetime import timedelta

    from cryptography.hazmat.primitives.serialization import load_ssh_private_key
    from flwr.common.constant import TIMESTAMP_HEADER
    from flwr.proto.fleet_pb2 import ActivateNodeRequest
    from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
    from flwr.supercore.date import now
    from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message

    folder = tmp_path_factory.mktemp("signed")
    create_node_key(folder / "d.key")
    operator.register(folder / "d.key.pub", "D")
    key = load_ssh_private_key((folder / "d.key").read_bytes(), None)

    def ask_in(off_s=0.0, claimed=None, altered=False):
        public = public_key_to_bytes(claimed or key.public_key())
        time_ = (now() + timedelta(seconds=off_s)).isoformat()
        signature = sign_message(key, time_.encode())
        if altered:
            time_ = now().isoformat()
        body = ActivateNodeRequest(public_key=public, heartbeat_interval=30.0).SerializeToString()
        headers = {
            "content-type": "application/protobuf", FLEET_HTTP_PUBLIC_KEY_HEADER: b64encode(public).decode(),
            TIMESTAMP_HEADER: time_, FLEET_HTTP_SIGNATURE_HEADER: b64encode(signature).decode(),
            "flwr-package-name": "flwr", "flwr-package-version": "1.41.0", "flwr-component-name": "flower-supernode",
        }  # fmt: skip
        return post(link.address, "/v1/fleet/activate-node", content=body, headers=headers).status_code

    return ask_in


def test_a_node_whose_clock_is_wrong_by_hours_is_refused(signed):
    assert signed() == 200
    assert signed(off_s=-250.0) == 412, "it is registered as active already"
    for off_s in (-7200.0, 7200.0, -400.0, 60.0):
        assert signed(off_s=off_s) == 401, off_s


def test_a_recorded_signature_is_of_no_use_later_nor_with_another_key(signed):
    from cryptography.hazmat.primitives.asymmetric import ec

    assert signed(off_s=-600.0) == 401, "replayed after ten minutes"
    assert signed(off_s=-600.0, altered=True) == 401, "replayed with a new time"
    assert signed(claimed=ec.generate_private_key(ec.SECP384R1()).public_key()) == 401, "the name of another"
