"""The process that keeps the Ray of one run, for `federation.flower.simulation`: `python -P ray_head.py PORT CPUS FOLDER`.

It starts what `ray start --head` starts, less what no run uses: the autoscaler, the log monitor, and the door for remote
clients, whose fixed port a second run on this machine would find taken. None of the three can be switched off with a public
setting. FOLDER/ready appears when Ray is up.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path


def main() -> None:
    """Start Ray's processes, and stay until a signal ends this one and them."""
    from ray._private.node import Node
    from ray._private.parameter import RayParams
    from ray._private.utils import estimate_available_memory, resolve_object_store_memory

    port, cpus, folder = sys.argv[1:]
    free = estimate_available_memory()
    # Ray finds the GPUs itself.
    parameters = RayParams(
        gcs_server_port=int(port), num_cpus=int(cpus), temp_dir=folder, available_memory_bytes=free,
        object_store_memory=resolve_object_store_memory(free, None), include_dashboard=False, no_monitor=True,
        include_log_monitor=False,  # type: ignore[arg-type]  # annotated as text
    )  # fmt: skip
    Node(parameters, head=True, shutdown_at_exit=True, spawn_reaper=True)
    Path(folder, "ready").touch()
    signal.pause()


if __name__ == "__main__":
    main()
