"""Flower's SuperLink with two doors: one for hospitals, one for the operator.

Flower serves three interfaces on one port: `fleet` for nodes, `control` (submit and stop runs, register and remove nodes) and
`runtime` for the ServerApp. It authenticates nodes by their keys, but whoever reaches the port may use `control`, and so
register a key or submit code that every node is then asked to run. Here hospitals get a port that serves only `fleet`, and
refuses requests that are too large before it reads them. The operator's port serves everything, and is bound to loopback or
to a network of the operator's.

Run it as `python -m federation.flower.superlink_server --operator-host H --operator-port N --largest-request-mib M` followed
by the options of `flower-superlink`, whose --host and --port are the hospitals' door. It puts itself between Flower's
application and uvicorn. It looks up the names that it needs from Flower at the start, and ends if one is missing.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import importlib
import socket
import sys
from typing import Any

# Of mallopt(3).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
# Flower sends arrays in pieces of 5 MiB, each in a request of its own.
LARGEST_REQUEST_MIB = 64
# A request of the operator's may hold a bundle (10 MiB) or such a piece.
_FOR_HOSPITALS = ("/v1/fleet/",)
_HEALTH = "/health"


class Doors:
    """ASGI middleware: a request at the hospitals' port may only use the fleet interface.

    Args:
        app: Flower's application.
        hospitals_port: port of the hospitals' door.
        largest_request: most bytes of a request's body, at either door.
    """

    def __init__(self, app: Any, hospitals_port: int, largest_request: int):
        self._app, self._port, self._largest = app, hospitals_port, largest_request

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # websockets are not served; uvicorn closes it
        path = scope["path"]
        # The port of the connection, not one that a header names.
        if scope["server"][1] == self._port and not (path.startswith(_FOR_HOSPITALS) or path == _HEALTH):
            await _refuse(send, 403, "this port serves only nodes; the operator has another one")
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > self._largest:
            await _refuse(send, 413, f"a request may have at most {self._largest} bytes")
            return
        read = 0

        async def counted() -> dict[str, Any]:
            nonlocal read
            message: dict[str, Any] = await receive()
            read += len(message.get("body", b""))
            if read > self._largest:
                raise _TooLarge
            return message

        refused = False

        async def answering(message: dict[str, Any]) -> None:
            nonlocal refused
            if read <= self._largest:
                await send(message)
            elif not refused:  # whatever answer Flower's layers made of the exception
                refused = True
                await _refuse(send, 413, f"a request may have at most {self._largest} bytes")

        try:
            await self._app(scope, counted, answering)
        except Exception:
            if read <= self._largest:
                raise
            await answering({})


class _TooLarge(Exception):
    pass


async def _refuse(send: Any, status: int, text: str) -> None:
    body = text.encode()
    headers = [
        (b"content-type", b"text/plain"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def main(arguments: list[str] | None = None) -> None:
    """Serve until a signal ends it."""
    parser = argparse.ArgumentParser(
        prog="python -m federation.flower.superlink_server", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument(
        "--operator-host", default="127.0.0.1", help="name or address of the operator's door (default: %(default)s)"
    )
    parser.add_argument(
        "--operator-port", type=int, default=8001, help="port of the operator's door (default: %(default)s)"
    )
    parser.add_argument("--largest-request-mib", type=int, default=LARGEST_REQUEST_MIB, help="default: %(default)s")
    own, flower = parser.parse_known_args(arguments)

    _spare_memory()
    import uvicorn

    # The package offers a function of the module's name.
    flower_superlink: Any = importlib.import_module("flwr.superlink.cli.flower_superlink")
    if not callable(getattr(getattr(flower_superlink, "uvicorn", None), "run", None)):
        sys.exit("this version of Flower starts its SuperLink in another way; use flwr >=1.41,<1.43")

    def serve(app: Any, host: str, port: int, **options: Any) -> None:
        options.pop("reload", None)
        options.pop("workers", None)
        doors = Doors(app, port, own.largest_request_mib * 2**20)
        # A silent connection must not stay open for ever; a slow line must be able to send 5 MiB.
        config = uvicorn.Config(doors, host=host, port=port, timeout_keep_alive=75, server_header=False, **options)
        sockets = [_listen(host, port), _listen(own.operator_host, own.operator_port)]
        asyncio.run(uvicorn.Server(config).serve(sockets=sockets))

    flower_superlink.uvicorn.run = serve
    sys.argv = ["flower-superlink", *flower]
    flower_superlink.flower_superlink()


def _spare_memory() -> None:
    """Keep the process small while models pass through, in pieces of 5 MiB and on many threads.

    Flower lets each of its connections to the database cache 64 MB of it, and maps 256 MB more. By default (glibc) each
    thread also keeps freed blocks of that size.
    """
    sql: Any = importlib.import_module("flwr.supercore.sql_mixin")
    sql.SQLITE_PRAGMAS = (*sql.SQLITE_PRAGMAS, ("cache_size", "-4000"), ("mmap_size", "0"))  # the last setting counts
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        for parameter, value in ((_M_MMAP_THRESHOLD, 2**18), (_M_TRIM_THRESHOLD, 2**18), (_M_ARENA_MAX, 2)):
            library.mallopt(parameter, value)


def _listen(host: str, port: int) -> socket.socket:
    try:
        # A name means one of this machine's addresses: with several networks, the one that only the operator has.
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as problem:
        sys.exit(f"cannot listen on {host}:{port} ({problem.strerror}); free the port, or name another one")
    return listening


if __name__ == "__main__":
    main()
