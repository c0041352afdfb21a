"""Asks a SuperLink over TLS whether it is there, and what time it is there."""

from __future__ import annotations

import ssl
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx

# A clock that is off by more is named; Flower refuses the signatures of a node that is off by more than 305 s.
CLOCK_NOTE_S, CLOCK_LIMIT_S = 60.0, 300.0


@dataclass(frozen=True)
class Health:
    """What a SuperLink's answer tells.

    Attributes:
        problem: why it could not be asked, or empty.
        clock_offset_s: seconds by which this machine's clock is ahead of the SuperLink's, to a second; None: not known.
    """

    problem: str = ""
    clock_offset_s: float | None = None


def ask(address: str, root_certificate: Path, timeout_s: float = 5.0) -> Health:
    """Ask a SuperLink's `/health`, trusting this root certificate and no other.

    Args:
        address: host:port.
    """
    try:
        context = ssl.create_default_context(cafile=str(root_certificate))
    except (OSError, ssl.SSLError) as problem:
        return Health(f"{root_certificate} is no certificate that can be used ({problem})")
    try:
        # No proxy of the environment: the address in centre.yaml is the only one that is connected to.
        with httpx.Client(verify=context, timeout=timeout_s, trust_env=False) as client:
            before = time.time()
            answer = client.get(f"https://{address}/health")
            now = (before + time.time()) / 2
    except httpx.HTTPError as problem:
        return Health(f"no answer over TLS from {address} ({problem or type(problem).__name__})")
    if not answer.is_success:
        return Health(f"{address} answers with HTTP status {answer.status_code}; is it a SuperLink?")
    try:
        theirs = parsedate_to_datetime(answer.headers["Date"]).timestamp() + 0.5  # the header has whole seconds
    except (KeyError, ValueError):
        return Health()
    return Health(clock_offset_s=now - theirs)


def clock_words(offset_s: float) -> str:
    """A clock's offset for a person."""
    return f"{abs(offset_s):.0f} s {'ahead of' if offset_s > 0 else 'behind'} the SuperLink's"
