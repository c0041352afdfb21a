"""Signatures between centres: made with the node's key, for one purpose, checked against the keys that centre.yaml lists."""

import shutil
import subprocess

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from clients.member_keys import BadSignature, checked_public_key, public_key_of, sign, verify
from federation.flower.certificates import create_node_key


@pytest.fixture
def keys(tmp_path):
    for name in "AB":
        create_node_key(tmp_path / name)
    return tmp_path


def test_a_members_signature_holds_for_its_purpose_content_and_key(keys):
    members = {name: checked_public_key((keys / f"{name}.pub").read_text()) for name in "AB"}
    signature = sign(keys / "A", "a classifier", b"weights")
    verify(members, "A", "a classifier", b"weights", signature)
    for centre, purpose, content in (
        ("B", "a classifier", b"weights"), ("C", "a classifier", b"weights"), ("A", "a sum", b"weights"), ("A", "a classifier", b"other"),
    ):  # fmt: skip
        with pytest.raises(BadSignature) as refused:
            verify(members, centre, purpose, content, signature)
        assert refused.value.code == "not_signed" and refused.value.numbers == {"member": centre, "what": purpose}


def test_the_public_half_is_the_one_that_members_list(keys):
    assert public_key_of(keys / "A") == checked_public_key((keys / "A.pub").read_text() + " comment")


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")
def test_keys_of_ssh_keygen_sign_too(tmp_path):
    subprocess.run(["ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", tmp_path / "own"], check=True)
    members = {"own": (tmp_path / "own.pub").read_text()}
    verify(members, "own", "a sum", b"x", sign(tmp_path / "own", "a sum", b"x"))


@pytest.mark.parametrize("text", ["", "ecdsa-sha2-nistp384 nonsense", "x" * 100])
def test_what_is_no_public_key_is_refused(text):
    with pytest.raises(ValueError, match="is not an OpenSSH public key of the type ECDSA"):
        checked_public_key(text)


def test_a_key_of_another_type_is_refused():
    other = ed25519.Ed25519PrivateKey.generate().public_key()
    text = other.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()
    with pytest.raises(ValueError, match="of the type ECDSA"):
        checked_public_key(text)
