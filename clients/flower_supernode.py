"""Flower's SuperNode, which tries again when a line breaks in the middle of a TLS handshake.

Flower's SuperNode takes every error of TLS for a wrong certificate and gives up for good. A firewall, a proxy or a port of a
container that is being restarted accept connections and close them, which is an error of TLS, too: the node would be left
hanging until somebody restarts it. Here such an end is told as what it is, a broken connection, after which Flower tries again.
A certificate that does not verify stays fatal.
"""

from __future__ import annotations

import ssl

import httpx
from flwr.supernode.cli import flower_supernode

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


_handle_request = httpx.HTTPTransport.handle_request


def handle_request(transport: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
    """In the place of the method of httpx: a broken line is told without the words by which Flower knows an error of TLS.

    Raises:
        httpx.TransportError: as ever; a ConnectError where the line broke.
    """
    try:
        return _handle_request(transport, request)
    except httpx.TransportError as error:
        if is_broken_line(error):
            raise httpx.ConnectError("the connection was closed by the other side", request=request) from error
        raise


def main() -> None:
    """Entry point; the arguments are those of Flower's own program."""
    httpx.HTTPTransport.handle_request = handle_request  # type: ignore[method-assign]
    flower_supernode()


if __name__ == "__main__":
    main()
