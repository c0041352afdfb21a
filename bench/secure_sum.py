"""Claims about secure sums, of a model of 5 MB (1.25 million float32) and four members:

    bytes:      at most twice those of the same round with plain fp32 weights, both ways together
    exchanges:  at most two a round beside the training, and two once for a federation

Seconds are those of one core: what a member adds to a round, and what the server does to take the masks off, with all four and
with one lost. What the members' signatures cost is in it.

    python -m bench.secure_sum [--rounds 5]     # writes bench/results/secure_sum.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from clients.member_keys import public_key_of, sign, verify
from federation.flower.certificates import create_node_key
from federation.secure_sum.coordinator import unmasked
from federation.secure_sum.fixed_point import added, mean_of, to_ring
from federation.secure_sum.member import Signer, SumMember
from federation.secure_sum.rules import Session
from federation.wire.job import canonical_json
from models.precision import processor

RESULTS = Path(__file__).parent / "results"
NAMES = ("A", "B", "C", "D")
# As the layers of a network: a few large arrays and many small ones.
SHAPES = [(512, 256, 3, 3), (64, 1024), *([(128,)] * 33)]


def signer(folder: Path, name: str, members: dict[str, str]) -> Signer:
    key = folder / f"{name}.key"
    return Signer(name, lambda purpose, content: sign(key, purpose, content),
                  lambda who, purpose, content, signature: verify(members, who, purpose, content, signature))  # fmt: skip


def size(*values: Any) -> int:
    """Bytes of arrays, and of JSON as it travels."""
    arrays = sum(
        array.nbytes
        for value in values
        if isinstance(value, dict)
        for array in value.values()
        if isinstance(array, np.ndarray)
    )
    plain = [
        value
        for value in values
        if not any(isinstance(v, np.ndarray) for v in (value.values() if isinstance(value, dict) else ()))
    ]
    return arrays + sum(len(canonical_json(value)) for value in plain)


class Exchanges:
    """Steps at all members, with their bytes both ways and the seconds of one member.

    Attributes:
        members: by name, made anew for each step as at a node.
    """

    def __init__(self, member: Callable[[str, int], SumMember]):
        self.member, self.bytes, self.count, self.seconds = member, 0, 0, 0.0

    def step(self, names: Any, work: Callable[[str], Any], *told: Any) -> dict[str, Any]:
        began = time.perf_counter()
        answers = {name: work(name) for name in names}
        self.seconds += (time.perf_counter() - began) / len(answers)
        self.bytes += sum(size(answer) for answer in answers.values()) + len(answers) * size(*told)
        self.count += 1
        return answers


def measured(rounds: int, lost: str, folder: Path) -> dict[str, float]:
    """One federation, in which `lost` does not give its input in any round but the keys for it."""
    members: dict[str, str] = {}
    for name in NAMES:
        create_node_key(folder / f"{name}.key")
        members[name] = public_key_of(folder / f"{name}.key")

    def session(number: int) -> Session:
        return Session("study", "arm/task", number, str(number))

    all_steps = Exchanges(
        lambda name, number: SumMember(folder / name, signer(folder, name, members), session(number), NAMES)
    )
    rng = np.random.default_rng(0)
    weights = {
        name: {f"w{i}": rng.normal(0, 0.05, shape).astype(np.float32) for i, shape in enumerate(SHAPES)}
        for name in NAMES
    }
    plain_bytes = 2 * len(NAMES) * size(weights["A"])
    opening_s, masking_s, signed_s, total_bytes = [], [], [], []
    prepared = None
    for number in range(rounds):
        before = all_steps.bytes
        if prepared is None:
            keys = all_steps.step(NAMES, lambda name, n=number: all_steps.member(name, n).keys())
            shares = all_steps.step(NAMES, lambda name, n=number, k=keys: all_steps.member(name, n).shares(k), keys)
        else:
            keys, shares = prepared
        rings = {name: to_ring(weights[name], 100, len(NAMES)) for name in NAMES}
        began = time.perf_counter()
        inputs = {}
        for name in NAMES:
            own = to_ring(weights[name], 100, len(NAMES))
            told = {sender: given[name] for sender, given in shares.items() if sender != name}
            inputs[name] = all_steps.member(name, number).masked(own, told)
            all_steps.bytes += size(inputs[name], told) + size(weights[name])  # weights come as fp32
        masking_s.append((time.perf_counter() - began) / len(NAMES))
        survivors = [name for name in NAMES if name != lost]
        earlier = all_steps.seconds
        # With all four the keys and shares of the next round come along; where one was lost they are asked for.
        along = number + 1 < rounds and not lost

        def signing(name: str, n: int = number, along: bool = along, survivors: list[str] = survivors) -> Any:
            answer: dict[str, Any] = {"signature": all_steps.member(name, n).survivors(survivors)}
            return answer | ({"keys": all_steps.member(name, n + 1).keys()} if along else {})

        signed = all_steps.step(survivors, signing, survivors)
        signatures = {name: one["signature"] for name, one in signed.items()}
        later = {name: one["keys"] for name, one in signed.items()} if along else {}

        def opening(
            name: str, n: int = number, along: bool = along, signatures: dict = signatures, later: dict = later
        ) -> Any:
            answer: dict[str, Any] = {"opening": all_steps.member(name, n).opening(signatures)}
            return answer | ({"shares": all_steps.member(name, n + 1).shares(later)} if along else {})

        opened = all_steps.step(survivors, opening, signatures, later)
        prepared = (later, {name: one["shares"] for name, one in opened.items()}) if along else None
        signed_s.append(all_steps.seconds - earlier)
        began = time.perf_counter()
        total = unmasked(session(number), keys, NAMES, {name: inputs[name] for name in survivors},
                         {name: one["opening"] for name, one in opened.items()})  # fmt: skip
        opening_s.append(time.perf_counter() - began)
        plain = added(rings[name] for name in survivors)
        assert all(np.array_equal(total[name], plain[name]) for name in plain), "the sum is exact"
        mean_of(total)
        total_bytes.append((all_steps.bytes - before) / plain_bytes)
    return {
        "exchanges": all_steps.count, "bytes_ratio": round(max(total_bytes), 4),
        "member_masking_s": round(statistics.median(masking_s), 4),
        "member_signing_and_opening_s": round(statistics.median(signed_s), 4),
        "server_unmasking_s": round(statistics.median(opening_s), 4),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    found = {}
    for what, lost in (("all_four", ""), ("one_lost", "D")):
        with tempfile.TemporaryDirectory() as folder:
            found[what] = measured(rounds, lost, Path(folder))
    whole = found["all_four"]
    result = {
        "claims": "bytes <= 2 x those of plain fp32; exchanges <= 2 a round beside the training, and 2 once for a federation",
        "model_mb": round(sum(4 * int(np.prod(shape)) for shape in SHAPES) / 1e6, 2),
        "members": len(NAMES), "rounds": rounds, **found,
        "exchanges_a_round": round((whole["exchanges"] - 2) / rounds, 2), "exchanges_once": 2,
        "holds": {
            "bytes": max(one["bytes_ratio"] for one in found.values()) <= 2,
            "exchanges": whole["exchanges"] <= 2 * rounds + 2,
        },
        "processor": processor(), "numpy": np.__version__,
    }  # fmt: skip
    text = json.dumps(result, indent=2)
    (RESULTS / "secure_sum.json").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
