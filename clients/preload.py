"""A resident process that has imported everything, and forks each job of a node (`preload: true` in centre.yaml).

A deployed job is a process of its own, and a short one spends most of its time importing torch. Here that happens once. The
forked process then does exactly what `clients.launcher` does, with the same checks. Nothing of a job stays in this process.

Before it forks, this process must neither touch a GPU nor compute in parallel, because neither CUDA nor OpenMP survives a
fork. OpenBLAS, whose threads start with numpy, ends them before a fork by itself.
"""

from __future__ import annotations

import array
import contextlib
import gc
import json
import logging
import os
import selectors
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from basics.private_files import UMASK

log = logging.getLogger("flwr")

SOCKET = "launch.sock"
_LONGEST = 64 * 1024
_PATIENCE_S = 5.0

Work = Callable[[list[str]], None]


class Resident:
    """Listens in a folder and forks for every request.

    Args:
        folder: where it makes the socket, for this user only.
        work: what a forked process does with its arguments; a SystemExit gives its exit status.
        current: whether the imported code is still the code on the disk. If not, it declines requests, and whoever asked
            starts a new process.
    """

    def __init__(self, folder: Path, work: Work, current: Callable[[], bool] = lambda: True):
        self._folder, self._work, self._current = folder, work, current
        self._waiting: dict[int, socket.socket] = {}  # who asked, by process id
        os.chdir(folder)  # the socket's full path may be too long for a socket
        made = f"{SOCKET}.{os.getpid()}"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(made)
        self._listener = socket.socket(socket.AF_UNIX)
        before = os.umask(0o177)
        try:
            self._listener.bind(made)
        finally:
            os.umask(before)
        self._listener.listen(16)
        os.replace(made, SOCKET)  # only now, so that whoever finds it is not turned away

    def serve(self) -> None:
        """Fork for every request, until a signal ends this process."""
        self._listener.setblocking(False)
        reading, writing = socket.socketpair()
        reading.setblocking(False)
        writing.setblocking(False)
        signal.set_wakeup_fd(writing.fileno())
        signal.signal(signal.SIGCHLD, lambda *_: None)
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(reading, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fileobj is reading:
                        with contextlib.suppress(BlockingIOError):
                            reading.recv(4096)
                    else:
                        self._accept((self._listener, reading, writing))
                self._reap()

    def _accept(self, own: tuple[socket.socket, ...]) -> None:
        try:
            asking, _ = self._listener.accept()
        except BlockingIOError:
            return
        asking.settimeout(_PATIENCE_S)
        streams: list[int] = []
        try:
            request, streams = _received(asking)
            arguments, cwd = [str(a) for a in request["arguments"]], str(request["cwd"])
            if len(streams) != 3 or not self._current():
                asking.close()
                return
        except (OSError, ValueError, KeyError, TypeError) as problem:
            log.warning("a request for a job could not be read: %r", problem)
            asking.close()
            return
        else:
            process = os.fork()
            if process == 0:
                for socket_ in (*own, asking, *self._waiting.values()):
                    socket_.close()
                self._become_job(arguments, cwd, streams)
            self._waiting[process] = asking
        finally:
            for stream in streams:
                os.close(stream)

    def _become_job(self, arguments: list[str], cwd: str, streams: list[int]) -> None:
        """In the forked process: do the work, and end whatever happens."""
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
            for target, stream in enumerate(streams):
                os.dup2(stream, target)
            os.chdir(cwd)
            self._work(arguments)
            status = 0
        except SystemExit as end:
            if end.code is None or isinstance(end.code, int):
                status = end.code or 0
            else:
                print(end.code, file=sys.stderr)
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
                logging.shutdown()
            os._exit(status & 0xFF)

    def _reap(self) -> None:
        while self._waiting:
            process, status = os.waitpid(-1, os.WNOHANG)
            if process == 0:
                return
            asking = self._waiting.pop(process, None)
            if asking is None:
                continue
            code = os.waitstatus_to_exitcode(status)
            with contextlib.suppress(OSError), asking:  # it may no longer wait
                asking.sendall(b"%d\n" % (code if code >= 0 else 128 - code))


def _received(asking: socket.socket) -> tuple[dict, list[int]]:
    """(request, the file descriptors that came with it)."""
    space = socket.CMSG_SPACE(3 * array.array("i").itemsize)
    content, streams = b"", array.array("i")
    while not content.endswith(b"\n"):
        part, extra, _, _ = asking.recvmsg(_LONGEST, space)
        for level, kind, data in extra:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                streams.frombytes(data[: len(data) - len(data) % streams.itemsize])
        content += part
        if not part or len(content) > _LONGEST:
            for stream in streams:
                os.close(stream)
            raise ValueError("it does not end")
    return json.loads(content), list(streams)


def main() -> None:
    """Entry point: serve in the folder of the first argument."""
    import torch

    import clients.app  # noqa: F401  (this takes the time)
    from basics.plugins import installed
    from clients import launcher
    from federation.flower.bundle import own_checkout, own_digest

    os.umask(UMASK)
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    memory = folder / "resident_bundle.json"
    digest = own_digest(own_checkout(), memory)

    def work(arguments: list[str]) -> None:
        sys.argv = ["flwr-clientapp", *arguments]
        launcher.main()

    known = installed()

    def current() -> bool:
        """Whether code and plug-ins are those that were there at the start; the code of a plug-in is imported by each job."""
        return own_digest(own_checkout(), memory) == digest and installed() == known

    resident = Resident(folder, work, current)
    gc.collect()
    gc.freeze()  # the forked processes go on sharing the memory of what is imported
    log.info("jobs are forked from process %d", os.getpid())
    resident.serve()


if __name__ == "__main__":
    main()
