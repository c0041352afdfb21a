"""Certificates and keys: who trusts whom, for how long, and who can read them."""

import ssl
import subprocess

import pytest
from cryptography import x509

from federation.flower.certificates import (
    create_authority,
    create_node_key,
    create_secret,
    issue_server_certificate,
    needs_renewal,
)
from federation.wire.errors import StudyError


@pytest.fixture
def authority(tmp_path):
    create_authority(tmp_path / "authority")
    return tmp_path / "authority"


def handshake(server_folder, root, host):
    """A TLS handshake in memory; raises what a client would raise."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(server_folder / "superlink.crt", server_folder / "superlink.key")
    client = ssl.create_default_context(cafile=str(root))
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    here = client.wrap_bio(to_client, to_server, server_hostname=host)
    there = server.wrap_bio(to_server, to_client, server_side=True)
    for side in (here, there, here, there):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    return here.version()


def test_a_node_that_trusts_the_authority_takes_the_certificate_for_every_name(authority, tmp_path):
    issue_server_certificate(authority, tmp_path / "link", ["superlink", "localhost", "127.0.0.1"])
    for host in ("superlink", "localhost", "127.0.0.1"):
        assert handshake(tmp_path / "link", tmp_path / "link" / "ca.crt", host) == "TLSv1.3"
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        handshake(tmp_path / "link", authority / "ca.crt", "elsewhere")


def test_a_node_of_another_authority_does_not(authority, tmp_path):
    issue_server_certificate(authority, tmp_path / "link", ["localhost"])
    create_authority(tmp_path / "other")
    with pytest.raises(ssl.SSLCertVerificationError, match="verify failed"):
        handshake(tmp_path / "link", tmp_path / "other" / "ca.crt", "localhost")


def test_an_expired_certificate_is_refused(authority, tmp_path):
    issue_server_certificate(authority, tmp_path / "link", ["localhost"], days=-1)
    with pytest.raises(ssl.SSLCertVerificationError, match="certificate has expired"):
        handshake(tmp_path / "link", authority / "ca.crt", "localhost")


def test_a_server_certificate_signs_no_other(authority, tmp_path):
    """Whoever takes the SuperLink's key cannot make certificates with it."""
    issue_server_certificate(authority, tmp_path / "link", ["localhost"])
    certificate = x509.load_pem_x509_certificate((tmp_path / "link" / "superlink.crt").read_bytes())
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert not certificate.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    assert not (tmp_path / "link" / "ca.key").exists()


def test_keys_and_secrets_are_readable_by_their_owner_only(authority, tmp_path):
    issue_server_certificate(authority, tmp_path / "link", ["localhost"])
    create_node_key(tmp_path / "b.key")
    create_secret(tmp_path / "secret")
    for file in (authority / "ca.key", tmp_path / "link" / "superlink.key", tmp_path / "b.key", tmp_path / "secret"):
        assert file.stat().st_mode & 0o777 == 0o600, file


def test_what_exists_is_kept(authority, tmp_path):
    create_node_key(tmp_path / "b.key")
    create_secret(tmp_path / "secret")
    files = [
        authority / "ca.key",
        authority / "ca.crt",
        tmp_path / "b.key",
        tmp_path / "b.key.pub",
        tmp_path / "secret",
    ]
    before = [file.read_bytes() for file in files]
    create_authority(authority)
    create_node_key(tmp_path / "b.key")
    create_secret(tmp_path / "secret")
    assert [file.read_bytes() for file in files] == before


def test_a_node_key_is_what_ssh_keygen_calls_ecdsa_384(tmp_path):
    create_node_key(tmp_path / "b.key")
    kind, _, *_ = (tmp_path / "b.key.pub").read_text().split()
    assert kind == "ecdsa-sha2-nistp384" and (tmp_path / "b.key").read_text().startswith(
        "-----BEGIN OPENSSH PRIVATE KEY"
    )


@pytest.mark.parametrize(
    ("days", "hosts", "renewed"),
    [
        (90, ["localhost"], False),
        (20, ["localhost"], True),
        (90, ["localhost", "new"], True),
        (-1, ["localhost"], True),
    ],
)
def test_a_certificate_is_renewed_in_time_and_for_new_names(days, hosts, renewed, authority, tmp_path):
    assert needs_renewal(tmp_path / "link" / "superlink.crt", hosts)
    issue_server_certificate(authority, tmp_path / "link", ["localhost"], days)
    assert needs_renewal(tmp_path / "link" / "superlink.crt", hosts) is renewed


def test_without_authority_or_names(tmp_path, authority):
    with pytest.raises(StudyError, match="no authority in .*nowhere") as problem:
        issue_server_certificate(tmp_path / "nowhere", tmp_path / "link", ["localhost"])
    assert problem.value.exit_status == 2
    with pytest.raises(StudyError, match="--host"):
        issue_server_certificate(authority, tmp_path / "link", [])


def test_openssl_agrees(authority, tmp_path):
    issue_server_certificate(authority, tmp_path / "link", ["localhost"])
    command = [
        "openssl",
        "verify",
        "-x509_strict",
        "-CAfile",
        str(authority / "ca.crt"),
        str(tmp_path / "link" / "superlink.crt"),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no openssl here")
    assert done.returncode == 0, done.stderr
