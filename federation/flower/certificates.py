"""Certificates and keys of a deployment: an authority of our own, the SuperLink's certificate, a key for every hospital.

Meant for trials, and for consortia without a certificate authority. A consortium with an authority uses its certificates
instead; nothing else changes. All keys are on an elliptic curve (P-384), because Flower's nodes sign with no other kind.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from federation.wire.errors import StudyError

AUTHORITY, AUTHORITY_KEY = "ca.crt", "ca.key"
SERVER, SERVER_KEY = "superlink.crt", "superlink.key"
SECRET = "operator.secret"
# Hospitals' clocks may be a little slow, and must not refuse a certificate made this minute.
_BACKDATED = datetime.timedelta(minutes=10)


def create_authority(folder: Path, days: int = 3650) -> None:
    """Make `ca.crt` and `ca.key`; existing ones are kept, because nodes may trust them.

    Whoever has the key can pretend to be the SuperLink. It is needed only to issue certificates.
    """
    if (folder / AUTHORITY_KEY).exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "polycentre authority")])
    certificate = (
        _builder(name, name, key.public_key(), days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA384())
    )
    _write(folder / AUTHORITY, certificate.public_bytes(serialization.Encoding.PEM))
    _write(folder / AUTHORITY_KEY, _pem(key), 0o600)


def issue_server_certificate(authority: Path, folder: Path, hosts: Sequence[str], days: int = 90) -> None:
    """Make `superlink.crt` and `superlink.key`, and copy the authority's `ca.crt`; an older certificate is replaced.

    Args:
        authority: folder with `ca.crt` and `ca.key`.
        hosts: every name and address under which nodes and the operator reach the SuperLink.
        days: how long it is valid; a negative number gives an expired one.

    Raises:
        StudyError: no authority in that folder, or no host.
    """
    if not hosts:
        raise StudyError("a certificate needs the names under which the SuperLink is reached; give --host", 2)
    try:
        issuer = x509.load_pem_x509_certificate((authority / AUTHORITY).read_bytes())
        signer = serialization.load_pem_private_key((authority / AUTHORITY_KEY).read_bytes(), None)
    except OSError as problem:
        raise StudyError(
            f"no authority in {authority} ({problem.strerror}: {problem.filename}); create one first", 2
        ) from None
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0][:64])])
    certificate = (
        _builder(name, issuer.subject, key.public_key(), days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general_name(host) for host in hosts]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA384())
    )
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / SERVER_KEY, _pem(key), 0o600)
    _write(folder / SERVER, certificate.public_bytes(serialization.Encoding.PEM))
    _write(folder / AUTHORITY, (authority / AUTHORITY).read_bytes())


def needs_renewal(certificate: Path, hosts: Sequence[str], days: int = 30) -> bool:
    """Whether a SuperLink's certificate is missing, ends within `days`, or lacks one of the names."""
    if not certificate.exists():
        return True
    found = x509.load_pem_x509_certificate(certificate.read_bytes())
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    held = {str(name.value) for name in names}
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
    return found.not_valid_after_utc < soon or not set(hosts) <= held


def create_node_key(file: Path) -> None:
    """Make a hospital's key, and `<file>.pub` for the operator; an existing key is kept, because it may be registered.

    The key never leaves the hospital.
    """
    if file.exists():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP384R1())
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    _write(file.with_name(file.name + ".pub"), public + b"\n")
    kind = (serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption())
    _write(file, key.private_bytes(*kind), 0o600)


def create_secret(file: Path) -> None:
    """Make a file of 256 random bits, which the operator's machine and the SuperLink share; an existing one is kept."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        _write(file, secrets.token_hex(32).encode(), 0o600)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    until = now + datetime.timedelta(days=days)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(now, until) - _BACKDATED)
        .not_valid_after(until)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates, key_cert_sign=signs_certificates, crl_sign=signs_certificates,
        content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(file: Path, content: bytes, mode: int = 0o644) -> None:
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    # Created with its final mode, so that others can never read a key, not even for a moment.
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as out:
        out.write(content)
    os.replace(temporary, file)
