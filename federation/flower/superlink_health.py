"""Asks a SuperLink whether it answers, with which authority's certificate, and what time it has."""

from __future__ import annotations

import email.utils
import ssl
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import httpx

# Seconds by which a node's clock may be ahead of the SuperLink's, or behind it, before Flower refuses the node's signatures;
# and from which on we report it. The date of an answer has whole seconds.
_REFUSED_AHEAD_S, _REFUSED_BEHIND_S = 5.0, 305.0
_NOTED_AHEAD_S, _NOTED_BEHIND_S = 3.0, 60.0


@dataclass(frozen=True)
class Health:
    """How a SuperLink answered.

    Attributes:
        problem: empty if it answers, otherwise one sentence that names the cause.
        clock_offset_s: seconds by which this machine's clock is ahead of the SuperLink's; None if the answer has no date.
    """

    problem: str = ""
    clock_offset_s: float | None = None


def ask(address: str, root_certificate: Path | None, timeout_s: float = 5.0) -> Health:
    """Ask a SuperLink.

    Args:
        address: host:port.
        root_certificate: of the authority that must have issued its certificate; None: ask over plain HTTP.
    """
    try:
        # Without the environment's proxy: we connect to this address only.
        before = time.time()
        if root_certificate is None:
            answer = httpx.get(f"http://{address}{_PATH}", timeout=timeout_s, trust_env=False)
        else:
            context = ssl.create_default_context(cafile=str(root_certificate))
            before = time.time()
            answer = httpx.get(f"https://{address}{_PATH}", timeout=timeout_s, verify=context, trust_env=False)
        now = (before + time.time()) / 2
    except (OSError, ssl.SSLError, httpx.HTTPError) as problem:
        return Health(_explained(address, root_certificate, problem))
    if not answer.is_success:
        return Health(f"{address} answers with status {answer.status_code}; is it a SuperLink?")
    try:
        theirs = (
            email.utils.parsedate_to_datetime(answer.headers["Date"]).timestamp() + 0.5
        )  # the header has whole seconds
    except (KeyError, ValueError):
        return Health()
    return Health(clock_offset_s=now - theirs)


def clock_words(offset_s: float) -> str:
    """A clock's offset in words."""
    return f"{abs(offset_s):.0f} s {'ahead of' if offset_s > 0 else 'behind'} the SuperLink's"


def clock_refused(offset_s: float) -> bool:
    """Whether Flower refuses a node whose clock is so far ahead (or, negative, behind)."""
    return not -_REFUSED_BEHIND_S < offset_s < _REFUSED_AHEAD_S


def clock_problem(offset_s: float | None) -> str:
    """One sentence if this machine's clock is too far from the SuperLink's, otherwise empty."""
    if offset_s is None or -_NOTED_BEHIND_S < offset_s < _NOTED_AHEAD_S:
        return ""
    refused = "; the SuperLink refuses this node until the clock is right" if clock_refused(offset_s) else ""
    return f"this machine's clock is {clock_words(offset_s)}{refused}; set it (NTP)"


_PATH = "/health"


def _explained(address: str, root_certificate: Path | None, problem: Exception) -> str:
    text = str(problem)
    if (
        isinstance(problem, OSError)
        and problem.filename is None
        and root_certificate is not None
        and not root_certificate.exists()
    ):
        return f"no root certificate at {root_certificate}; get the authority's from the operator"
    if (
        isinstance(problem, ssl.SSLError)
        and not isinstance(problem, ssl.SSLCertVerificationError)
        or "NO_CERTIFICATE" in text
    ):
        return f"{root_certificate} or the connection to {address} does not work with TLS ({text})"
    if "certificate has expired" in text:
        return (
            f"the certificate of {address} has expired (or this machine's clock is wrong); ask the operator to renew it"
        )
    if "not yet valid" in text:
        return f"the certificate of {address} is not valid yet: this machine's clock is behind; set it (NTP)"
    if "Hostname mismatch" in text or "IP address mismatch" in text:
        return f"the certificate is not for {address}; use the name for which it was issued, or have a new one issued"
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return f"the certificate of {address} does not come from the authority in {root_certificate}; do not continue unless you know why"
    return f"{address} does not answer ({text or type(problem).__name__}); is the SuperLink running, and the port open?"


def main() -> None:
    """`python -m federation.flower.superlink_health ADDRESS [ROOT_CERTIFICATE]`: status 0 if it answers; for health checks."""
    problem = ask(sys.argv[1], Path(sys.argv[2]) if len(sys.argv) > 2 else None, timeout_s=3.0).problem
    sys.exit(problem or 0)


if __name__ == "__main__":
    main()
