"""A member's half of a secure sum: five steps, each answered once.

What a step answered is on the disk before it leaves. Asked again with the same, a member answers the same; asked with anything
else, it refuses. So a coordinator learns nothing from asking twice, and a member that was killed goes on where it was.

Two rules hold over all sessions of a round: one list of survivors, whatever is asked later (two sums of one round that differ by
one member would give that member's numbers), and of no member both the self mask and the masking key.

Longer than most files, because it is one state machine.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from basics.atomic_files import write_text
from federation.secure_sum.masks import SECRET_BYTES, add_mask, agreed, derived, new_key
from federation.secure_sum.rules import LEAST, Session, SumRefused, least, threshold
from federation.secure_sum.shares import SHARE_BYTES, split

# What a signature is for.
KEYS, SURVIVORS = "keys of a secure sum", "survivors of a secure sum"
# Sessions that a member keeps of one training; a coordinator could ask for keys without end.
_KEPT = 8
_NONCE_BYTES = 12
_FIXED = "survivors.json"

Keys = dict[str, str]


@dataclass(frozen=True)
class Signer:
    """A member's name and signature, and the check of the others'.

    Attributes:
        sign: (purpose, content) -> signature.
        verify: (member, purpose, content, signature); raises a ValueError with a code where that member did not sign.
    """

    centre: str
    sign: Callable[[str, bytes], bytes]
    verify: Callable[[str, str, bytes, bytes], None]


class SumMember:
    """One session at one member.

    Args:
        folder: for secure sums, in the member's workspace; made if missing, readable for its owner only.
        members: those that may take part, as the study fixes them.
    """

    def __init__(self, folder: Path, signer: Signer, session: Session, members: Sequence[str]):
        self._signer, self._session, self._members = signer, session, tuple(members)
        name = hashlib.sha256(json.dumps([session.study, session.of]).encode()).hexdigest()[:32]
        self._folder = folder / name
        number = hashlib.sha256(session.context()).hexdigest()[:16]
        self._file = self._folder / f"{session.round}-{number}.json"

    # -- steps ---------------------------------------------------------------------------------------------------

    def keys(self) -> Keys:
        """This member's public keys of the session, signed: `encryption`, `masking`, `signature`, in hexadecimal digits."""
        if self._file.exists():
            return self._read()["keys"]
        if self._signer.centre not in self._members:
            raise SumRefused(f"{self._signer.centre} is not a member of this sum")
        (encryption, encryption_public), (masking, masking_public) = new_key(), new_key()
        public = {"encryption": encryption_public.hex(), "masking": masking_public.hex()}
        signature = self._signer.sign(KEYS, self._key_content(self._signer.centre, public))
        answer = public | {"signature": signature.hex()}
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._write(
            {"keys": answer, "secrets": {"encryption": encryption.hex(), "masking": masking.hex(), "self": secrets.token_hex(SECRET_BYTES)}}
        )  # fmt: skip
        self._forget()
        return answer

    def shares(self, keys: Mapping[str, Keys]) -> dict[str, str]:
        """Encrypted shares of this member's secrets, by recipient.

        Args:
            keys: of every member of the session, as each answered.

        Raises:
            SumRefused: another list than it saw before, one with too few or foreign members, keys that occur twice, or not its own.
            ValueError: from the signer, for keys that their member did not sign.
        """
        state = self._read()
        listed = {name: dict(own) for name, own in sorted(keys.items())}
        if "list" in state:
            if state["list"] != listed:
                raise SumRefused("this member has seen another list of keys in this session")
            return state["shares"]
        self._check_keys(listed, state["keys"])
        own, names = self._signer.centre, list(listed)
        needed, points = threshold(len(names)), range(1, len(names) + 1)
        parts = {what: split(bytes.fromhex(state["secrets"][what]), points, needed) for what in ("self", "masking")}
        answer = {}
        for point, name in zip(points, names, strict=True):
            share = parts["self"][point] + parts["masking"][point]
            if name == own:
                state["own share"] = share.hex()
            else:
                answer[name] = self._encrypted(state, listed[name], name, share)
        self._write(state | {"list": listed, "shares": answer})
        return answer

    def masked(self, ring: Mapping[str, np.ndarray], shares: Mapping[str, str]) -> dict[str, np.ndarray]:
        """This member's numbers with its masks.

        Args:
            ring: uint64 arrays, as of `fixed_point.to_ring`.
            shares: by sender, what the others that take part encrypted for this member.

        Raises:
            SumRefused: other numbers or other members than before in this session, too few of them, or a share that cannot be read.
        """
        state = self._read()
        if "list" not in state:
            raise SumRefused("this member has not shared its secrets in this session")
        own, received = self._signer.centre, dict(sorted(shares.items()))
        group = sorted([own, *received])
        if own in received or not set(group) <= set(state["list"]) or len(group) < least(len(state["list"])):
            raise SumRefused(
                f"the input would be masked among {', '.join(group)[:200]}, who are too few or no members of this session"
            )
        digest = _digest(ring)
        if "input" in state:
            if (state["input"], state["received"]) != (digest, received):
                raise SumRefused("this member has given another input in this session")
        else:
            if "secrets" not in state:
                raise SumRefused("this session is closed")
            for sender, text in received.items():
                self._decrypted(state, sender, text)
            state |= {"input": digest, "received": received}
            self._write(state)
        if "secrets" not in state:
            raise SumRefused("this session is closed")
        masked = {name: array.copy() for name, array in ring.items()}
        add_mask(masked, self_seed(self._session, own, bytes.fromhex(state["secrets"]["self"])), 1)
        for other in received:
            seed = pair_seed(
                self._session, bytes.fromhex(state["secrets"]["masking"]), own, other, state["list"][other]["masking"]
            )
            add_mask(masked, seed, sign_of(own, other))
        return masked

    def survivors(self, survivors: Sequence[str]) -> str:
        """This member's signature under the list of those whose input is in the sum, in hexadecimal digits.

        Raises:
            SumRefused: another list than it signed for this round before, too few survivors, or itself not among them.
        """
        state, listed = self._read(), sorted(survivors)
        if "survivors" in state and state["survivors"] == listed:
            return state["signature"]
        if "input" not in state:
            raise SumRefused("this member has given no input in this session")
        group = {self._signer.centre, *state["received"]}
        if len(set(listed)) != len(listed) or not set(listed) <= group or self._signer.centre not in listed:
            raise SumRefused("the survivors are not those whose input this member masked, or it is not among them")
        needed = least(len(state["list"]))
        if len(listed) < needed:
            raise SumRefused(
                f"{len(listed)} survivors, and a session of {len(state['list'])} opens for {needed} or more"
            )
        fixed = self._fixed()
        if fixed.setdefault(str(self._session.round), listed) != listed:
            raise SumRefused(
                "this member has signed another list of survivors for this round, and a round is summed once"
            )
        write_text(self._folder / _FIXED, json.dumps(fixed))
        signature = self._signer.sign(SURVIVORS, self._session.context(listed)).hex()
        self._write(state | {"survivors": listed, "signature": signature})
        return signature

    def opening(self, signatures: Mapping[str, str]) -> dict[str, dict[str, str]]:
        """Shares: `self` of the survivors' self masks, `masking` of the masking keys of those that left.

        Args:
            signatures: of survivors under the list that this member signed.

        Raises:
            SumRefused: it signed no list, or too few others did.
            ValueError: from the signer, for a signature that is not its member's.
        """
        state = self._read()
        if "opening" in state:
            return state["opening"]
        if "survivors" not in state:
            raise SumRefused("this member has signed no list of survivors in this session")
        own, survivors, needed = self._signer.centre, state["survivors"], threshold(len(state["list"]))
        if not set(signatures) <= set(survivors) or len(signatures) < needed:
            raise SumRefused(
                f"{len(signatures)} signatures under the list of survivors, and {needed} of survivors are needed"
            )
        content = self._session.context(survivors)
        for name, signature in signatures.items():
            if name != own:
                self._signer.verify(name, SURVIVORS, content, _unhex(signature))
            elif signature != state["signature"]:
                raise SumRefused("the signature under this member's name is not its own")
        shares = {name: self._decrypted(state, name, text) for name, text in state["received"].items()}
        shares[own] = bytes.fromhex(state["own share"])
        answer = {
            "self": {name: share[:SHARE_BYTES].hex() for name, share in sorted(shares.items()) if name in survivors},
            "masking": {name: share[SHARE_BYTES:].hex() for name, share in sorted(shares.items()) if name not in survivors},
        }  # fmt: skip
        # Nobody needs the secrets of an open sum.
        left = {key: value for key, value in state.items() if key not in ("secrets", "own share")}
        self._write(left | {"opening": answer})
        return answer

    # -- checks --------------------------------------------------------------------------------------------------

    def _key_content(self, name: str, keys: Mapping[str, str]) -> bytes:
        return self._session.context(name, keys["encryption"], keys["masking"])

    def _check_keys(self, listed: Mapping[str, Keys], own: Keys) -> None:
        foreign = [name for name in listed if name not in self._members]
        if foreign:
            raise SumRefused(f"{foreign[0][:64]} is not a member of this sum")
        if len(listed) < LEAST:
            raise SumRefused(f"{len(listed)} members, and a sum of fewer than {LEAST} would show what single ones gave")
        if listed.get(self._signer.centre) != own:
            raise SumRefused("the keys under this member's name are not its own")
        public = [keys[which] for keys in listed.values() for which in ("encryption", "masking")]
        if len(set(public)) != len(public):
            raise SumRefused("a key occurs twice in the list")
        for name, keys in listed.items():
            if name != self._signer.centre:
                self._signer.verify(name, KEYS, self._key_content(name, keys), _unhex(keys["signature"]))

    # -- encryption ----------------------------------------------------------------------------------------------

    def _cipher(
        self, state: Mapping[str, Any], other: str, sender: str, recipient: str
    ) -> tuple[ChaCha20Poly1305, bytes]:
        bound = self._session.context("share", sender, recipient)
        private = bytes.fromhex(state["secrets"]["encryption"])
        try:
            return ChaCha20Poly1305(agreed(private, _unhex(state["list"][other]["encryption"]), bound)), bound
        except ValueError:
            raise SumRefused(f"the encryption key of {other} is none") from None

    def _encrypted(self, state: Mapping[str, Any], keys: Keys, recipient: str, share: bytes) -> str:
        own = self._signer.centre
        cipher, bound = self._cipher({**state, "list": {recipient: keys}}, recipient, own, recipient)
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return (nonce + cipher.encrypt(nonce, share, bound)).hex()

    def _decrypted(self, state: Mapping[str, Any], sender: str, text: str) -> bytes:
        cipher, bound = self._cipher(state, sender, sender, self._signer.centre)
        sealed = _unhex(text)
        try:
            share = cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], bound)
        except (InvalidTag, ValueError):
            raise SumRefused(f"the share of {sender} cannot be read") from None
        if len(share) != 2 * SHARE_BYTES:
            raise SumRefused(f"the share of {sender} cannot be read")
        return share

    # -- the disk ------------------------------------------------------------------------------------------------

    def _read(self) -> dict[str, Any]:
        try:
            return json.loads(self._file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise SumRefused("this member has no keys of this session, or no longer has them") from None

    def _write(self, state: Mapping[str, Any]) -> None:
        write_text(self._file, json.dumps(state))

    def _fixed(self) -> dict[str, list[str]]:
        file = self._folder / _FIXED
        return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}

    def _forget(self) -> None:
        """Delete the oldest sessions; what is deleted can never be opened."""
        files = sorted(self._folder.glob("[0-9]*.json"), key=lambda file: file.stat().st_mtime_ns)
        for file in files[:-_KEPT]:
            file.unlink(missing_ok=True)


# -- what both halves compute ------------------------------------------------------------------------------------------


def self_seed(session: Session, member: str, secret: bytes) -> bytes:
    """Of a member's self mask."""
    return derived(secret, session.context("self mask", member))


def pair_seed(session: Session, private: bytes, own: str, other: str, public: str) -> bytes:
    """Of the mask that two members share.

    Args:
        private: masking key of `own`.
        public: that of `other`, in hexadecimal digits.

    Raises:
        SumRefused: it is no key.
    """
    try:
        return agreed(private, _unhex(public), session.context("mask", sorted((own, other))))
    except ValueError:
        raise SumRefused(f"the masking key of {other} is none") from None


def sign_of(own: str, other: str) -> int:
    """Of the mask of two members in the numbers of `own`: one adds it, the other takes it off."""
    return 1 if own < other else -1


def _unhex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise SumRefused("a key, a signature or a share is not in hexadecimal digits") from None


def _digest(ring: Mapping[str, np.ndarray]) -> str:
    found = hashlib.sha256()
    for name in sorted(ring):
        found.update(json.dumps([name, list(ring[name].shape)]).encode())
        found.update(np.ascontiguousarray(ring[name]).tobytes())
    return found.hexdigest()
