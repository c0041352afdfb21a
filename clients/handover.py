"""The small program that replaces Flower's client process on a node with a resident process (`preload: true`).

It hands its arguments, its working directory and its standard streams to the resident process, and ends with the status of
the process that this one forks. It runs by its path with `python -I -S`, and imports neither the project nor site-packages.

If the resident process does not answer, it runs the plain launcher instead, with the same checks.
"""

from __future__ import annotations

import json
import os
import socket
import sys


def main(folder: str, name: str, arguments: list[str]) -> int:
    """Hand a job over.

    Args:
        folder, name: of the resident process's socket, whose full path may be too long for a socket.

    Returns:
        The exit status of the job's process.
    """
    plain = [sys.executable, "-P", "-m", "clients.launcher", *arguments]
    request = json.dumps({"arguments": arguments, "cwd": os.getcwd()}).encode() + b"\n"
    try:
        os.chdir(folder)
        with socket.socket(socket.AF_UNIX) as resident:
            resident.connect(name)
            socket.send_fds(resident, [request], [0, 1, 2])
            answer = b""
            while not answer.endswith(b"\n"):
                part = resident.recv(64)
                if not part:
                    break
                answer += part
        return int(answer)
    except (OSError, ValueError) as problem:
        # ValueError: it ended, or it declines because the code has changed since it started.
        print(f"polycentre: no resident process took the job ({problem}); starting a new one", file=sys.stderr)
        sys.stderr.flush()
        os.execv(plain[0], plain)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
