"""How a node's connection reports a line that breaks, and a certificate that is wrong."""

import datetime
import socket
import ssl
import threading
import time

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from clients import flower_supernode
from clients.flower_supernode import handle_request

# By these Flower knows an error after which it gives up.
FATAL = ("certificate", "ssl", "tls")


@pytest.fixture
def error_of(monkeypatch):
    """Function: the error of a request to a server that treats its first connection so."""
    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", handle_request)
    servers = []

    def ask(treat):
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)

        def serve():
            connection, _ = server.accept()
            treat(connection)
            connection.close()

        threading.Thread(target=serve, daemon=True).start()
        with pytest.raises(httpx.TransportError) as caught, httpx.Client() as client:
            client.get(f"https://127.0.0.1:{server.getsockname()[1]}", timeout=10)
        return caught.value

    yield ask
    for server in servers:
        server.close()


def closes_at_once(connection):
    pass


def closes_in_the_handshake(connection):
    connection.recv(4096)


@pytest.mark.parametrize("treat", [closes_at_once, closes_in_the_handshake])
def test_a_line_that_breaks_in_a_handshake_is_one_to_try_again(treat, error_of):
    error = error_of(treat)
    assert isinstance(error, httpx.ConnectError) and not any(word in str(error).lower() for word in FATAL), error


def test_a_wrong_certificate_stays_fatal(error_of, tmp_path):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    own = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    file = tmp_path / "server.pem"
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + own.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)

    def serve_with_it(connection):
        with pytest.raises(ssl.SSLError):
            context.wrap_socket(connection, server_side=True)

    assert "certificate" in str(error_of(serve_with_it)).lower()


@pytest.mark.parametrize(
    ("path", "late", "again"), [("activate-node", False, True), ("activate-node", True, False), ("x", False, False)]
)
def test_a_node_waits_for_the_end_of_its_last_session_and_not_for_ever(path, late, again, monkeypatch):
    monkeypatch.setattr(flower_supernode, "_handle_request", lambda transport, request: httpx.Response(412))
    monkeypatch.setattr(flower_supernode, "_BEGAN", time.monotonic() - (1000.0 if late else 0.0))
    request = httpx.Request("POST", f"https://127.0.0.1/v1/fleet/{path}")
    if again:
        with pytest.raises(httpx.ConnectError, match="last session"):
            handle_request(None, request)
    else:
        assert handle_request(None, request).status_code == 412
