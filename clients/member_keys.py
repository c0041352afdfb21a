"""Signatures between centres, which the coordinator passes on and cannot make.

Each `centre.yaml` lists the public keys of the other members (`members`). They are exchanged outside the coordinator, who could
swap keys that passed through its hands. A centre signs with the key by which the SuperLink knows it (ECDSA, FIPS 186-5, with
SHA-512); every signature is for one purpose, so that none can stand in for another.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

_ALGORITHM = ec.ECDSA(hashes.SHA512())


class BadSignature(ValueError):
    """Something that a member should have signed, and did not; `centre` is that member."""

    code = "not_signed"

    def __init__(self, centre: str, purpose: str):
        super().__init__(
            f"{purpose} is not signed by {centre!r}, or {centre!r} is not among the members of centre.yaml"
        )
        self.numbers = {"member": centre[:64], "what": purpose}


def checked_public_key(text: str) -> str:
    """A member's public key as it is listed, without its comment.

    Raises:
        ValueError: it is not an OpenSSH public key of the type ECDSA.
    """
    _public_key(text)
    return " ".join(text.split()[:2])


def public_key_of(private: Path) -> str:
    """The public half of a node's key, as members list it.

    Raises:
        OSError, ValueError: the file is not an OpenSSH private key of the type ECDSA without a passphrase.
    """
    kind = (serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return _private_key(private).public_key().public_bytes(*kind).decode()


def sign(private: Path, purpose: str, content: bytes) -> bytes:
    """This centre's signature.

    Args:
        private: the node's key.
        purpose: what the content is; verified with it.

    Raises:
        OSError, ValueError: see `public_key_of`.
    """
    return _private_key(private).sign(_signed(purpose, content), _ALGORITHM)


def verify(members: Mapping[str, str], centre: str, purpose: str, content: bytes, signature: bytes) -> None:
    """Check that a member signed this.

    Args:
        members: public keys by centre, as `centre.yaml` lists them.

    Raises:
        BadSignature: it did not, or it is not a member.
    """
    try:
        _public_key(members[centre]).verify(signature, _signed(purpose, content), _ALGORITHM)
    except (KeyError, InvalidSignature):
        raise BadSignature(centre, purpose) from None


def _signed(purpose: str, content: bytes) -> bytes:
    return b"polycentre\0" + purpose.encode() + b"\0" + content


def _public_key(text: str) -> ec.EllipticCurvePublicKey:
    try:
        key = serialization.load_ssh_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ValueError("is not an OpenSSH public key of the type ECDSA; copy the one line of the member's .pub file")
    return key


def _private_key(file: Path) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_ssh_private_key(file.read_bytes(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError(f"{file} is not a key of the type ECDSA; make one with ssh-keygen -t ecdsa")
    return key
