"""Flower's SuperNode, which here tries again in two cases where Flower gives up: a broken handshake, and its own last session; and
which records Flower's own error replies.

Flower's SuperNode takes every TLS error for a wrong certificate and gives up. But a firewall, a proxy or the port of a
restarting container accepts connections and closes them, which is also a TLS error: the node would hang until somebody
restarts it. Here such an error is raised as what it is, a broken connection, after which Flower tries again. A certificate
that cannot be verified stays fatal.

It opens each bundle to read its settings, before any of this project's processes sees it. Here `read_bundle` does so first,
which takes no more memory than a bundle of ours does.

The SuperLink refuses a node that was killed and started again as long as it counts the node's last session as online, up to
a minute. Here the node waits instead of ending.

Every reply, whoever made it, is stored here before it is sent. An error reply is one of Flower's own (`clients.flower_errors`).
"""

from __future__ import annotations

import logging
import os
import ssl
import time
from pathlib import Path

import httpx
from flwr.app import Message
from flwr.app.user_config import UserConfig
from flwr.supercore.run import Run
from flwr.supernode import start_client_internal
from flwr.supernode.cli import flower_supernode
from flwr.supernode.nodestate.in_memory_nodestate import InMemoryNodeState

from basics.plugins import CENTRE_FILE_VARIABLE
from basics.private_files import UMASK
from basics.words import one_line
from clients import flower_errors
from federation.flower.bundle import BundleError, read_bundle

log = logging.getLogger("flwr")

# Flower's heartbeats come every 30 s, and a session ends after one and a half of them were missed.
_LAST_SESSION_S = 120.0
# The other side closed before it had said anything.
_BROKEN = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ConnectionError)


def is_broken_line(error: BaseException | None) -> bool:
    """Whether the cause of an error is that the connection ended, rather than what was said on it."""
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
    """Replaces the method of httpx: where another try helps, raises an error after which Flower does try again.

    Raises:
        httpx.TransportError: as httpx does. Where the connection broke, or this node's last session counts as online: a
            ConnectError without the words by which Flower recognises a TLS error.
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
        log.warning("the SuperLink still counts this node's last session as online; trying again")
        raise httpx.ConnectError("this node's last session still counts as online", request=request)
    return response


_store_message = InMemoryNodeState.store_message


def store_message(state: InMemoryNodeState, message: Message) -> str | None:
    """Replaces the method of Flower's state of a node: an error reply is recorded before it is stored, from where it is sent."""
    known = message.metadata.message_id in state.msg_store  # sent twice by a process that did not hear the answer
    if flower_errors.is_error_reply(message) and not known:
        flower_errors.record(message, Path(os.environ[CENTRE_FILE_VARIABLE]))
    return _store_message(state, message)


_LONGEST_SETTINGS = 2**20  # bytes of TOML; this project's has 8 KiB
_get_fused_config_from_fab = start_client_internal.get_fused_config_from_fab


def get_fused_config_from_fab(fab_file: Path | bytes, run: Run) -> UserConfig:
    """Replaces Flower's function of this name: nothing is taken from a bundle that cannot be ours.

    Its message goes on to the launcher, which refuses it in the project's own words.
    """
    try:
        content = fab_file if isinstance(fab_file, bytes) else fab_file.read_bytes()
        if len(read_bundle(content)["pyproject.toml"]) > _LONGEST_SETTINGS:
            raise BundleError("its pyproject.toml is longer than that of any bundle of ours")
        return _get_fused_config_from_fab(content, run)
    except Exception as problem:  # Flower's parser raises whatever its parts raise, and the node would end
        log.warning("the settings of a bundle were not read: %s", one_line(problem, 200))
        return {}


def main() -> None:
    """Entry point; takes the arguments of Flower's own program."""
    os.umask(UMASK)
    InMemoryNodeState.store_message = store_message  # type: ignore[method-assign, assignment]
    httpx.HTTPTransport.handle_request = handle_request  # type: ignore[method-assign, assignment]
    start_client_internal.get_fused_config_from_fab = get_fused_config_from_fab
    flower_supernode()


if __name__ == "__main__":
    main()
