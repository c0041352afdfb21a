"""Flower's SuperNode, which tries again where Flower gives up for good: after a broken handshake, and after its own death.

Flower's SuperNode takes every error of TLS for a wrong certificate and gives up for good. A firewall, a proxy or a port of a
container that is being restarted accept connections and close them, which is an error of TLS, too: the node would be left
hanging until somebody restarts it. Here such an end is told as what it is, a broken connection, after which Flower tries again.
A certificate that does not verify stays fatal.

A node that was killed and started again is refused by the SuperLink for as long as that counts its last session as online, up to a
minute. It waits, instead of ending.
"""

from __future__ import annotations

import logging
import ssl
import time

import httpx
from flwr.supernode.cli import flower_supernode

log = logging.getLogger("flwr")

# Flower's heartbeats come every 30 s, and a session ends when one and a half of them are missed.
_LAST_SESSION_S = 120.0
# The other side was gone before it had said anything.
_BROKEN = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ConnectionError)


def is_broken_line(error: BaseException | None) -> bool:
    """Whether an error comes from a connection that ended, and not from what was said on it."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return False
        if isinstance(error, _BROKEN):
            return True
        error = error.__cause__ or error.__context__
    return False


_BEGAN = time.monotonic()
_handle_request = httpx.HTTPTransport.handle_request


def handle_request(transport: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
    """In the place of the method of httpx: what is worth another try is told as an error after which Flower does try again.

    Raises:
        httpx.TransportError: as ever; a ConnectError without the words by which Flower knows an error of TLS where the line broke,
            or where this node's last session counts as online.
    """
    try:
        response = _handle_request(transport, request)
    except httpx.TransportError as error:
        if is_broken_line(error):
            raise httpx.ConnectError("the connection was closed by the other side", request=request) from error
        raise
    refused = response.status_code == httpx.codes.PRECONDITION_FAILED and request.url.path.endswith("/activate-node")
    if refused and time.monotonic() - _BEGAN < _LAST_SESSION_S:
        response.close()
        log.warning("the SuperLink counts this node's last session as online; trying again")
        raise httpx.ConnectError("this node's last session counts as online", request=request)
    return response


def main() -> None:
    """Entry point; the arguments are those of Flower's own program."""
    httpx.HTTPTransport.handle_request = handle_request  # type: ignore[method-assign, assignment]
    flower_supernode()


if __name__ == "__main__":
    main()
