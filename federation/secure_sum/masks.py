"""Masks: streams of numbers modulo 2^64 from secrets of two members, or of one. Primitives are those of `cryptography`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

SECRET_BYTES = 32


def new_key() -> tuple[bytes, bytes]:
    """(private, public) of X25519 (RFC 7748), 32 bytes each."""
    private = X25519PrivateKey.generate()
    return private.private_bytes_raw(), private.public_key().public_bytes_raw()


def public_of(private: bytes) -> bytes:
    """The public half of a key."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def agreed(private: bytes, public: bytes, info: bytes) -> bytes:
    """32 bytes that two members share: X25519, then HKDF-SHA256 (RFC 5869).

    Args:
        info: what the bytes are for; other bytes come from another.

    Raises:
        ValueError: the public key is none.
    """
    shared = X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(public))
    return derived(shared, info)


def derived(secret: bytes, info: bytes) -> bytes:
    """32 bytes from a secret by HKDF-SHA256."""
    return HKDF(hashes.SHA256(), SECRET_BYTES, None, info).derive(secret)


def add_mask(ring: Mapping[str, np.ndarray], seed: bytes, sign: int) -> None:
    """Add the mask of a seed (ChaCha20's key stream, RFC 8439) to arrays, in place, or with sign -1 take it off.

    Arrays take their parts of the stream in the order of their names. A seed is for one set of arrays only.

    Args:
        ring: uint64 arrays.
    """
    stream = Cipher(algorithms.ChaCha20(seed, bytes(16)), None).encryptor()
    for name in sorted(ring):
        array = ring[name]
        mask = np.frombuffer(stream.update(bytes(array.nbytes)), "<u8").reshape(array.shape)
        (np.add if sign > 0 else np.subtract)(array, mask, out=array)
