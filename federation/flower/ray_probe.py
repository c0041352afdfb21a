"""The process that looks at a Ray cluster for `federation.flower.ray_cluster`, and prints its findings as one line of JSON.

`python -P ray_probe.py '{"address", "tokens": {folder: token}, "answer_s", "examine_s"}'`. It runs as a file, so that Ray
sends its functions to nodes on which the project may not be installed; and with -P, outside the checkout, so that Ray does
not make the nodes search this machine's folders for modules.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

# Nodes report now and then what is free: one that has just joined, or become free, may not have reported yet.
_SETTLE_S = 4.0


def examine(node: str, tokens: dict[str, str]) -> dict[str, Any]:
    """On a node of the cluster: which code it would run, and which folders it shares with the driver.

    In a folder with the token, the node writes the token backwards, into a file named by its own id.
    """
    try:
        from federation.wire.code_digest import ALL, code_digest, package_folder

        found: dict[str, Any] = {"digest": code_digest(ALL), "folder": str(package_folder("federation").parent)}
    except ImportError:
        return {"error": f"has no polycentre in its Python ({sys.executable}); install it there, in the same version"}
    places = {}
    for place, token in tokens.items():
        try:
            places[place] = (Path(place) / "token").read_text() == token
            if places[place]:
                (Path(place) / node).write_text(token[::-1])
        except OSError:
            places[place] = False
    return found | {"places": places}


def look(address: str, tokens: dict[str, str], answer_s: float, examine_s: float) -> dict[str, Any]:
    """Connect, ask every node that has CPUs, and leave."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # Ray retries for minutes, and some of its waiting cannot be interrupted.
    watchdog = threading.Timer(answer_s, _give_up, [f"the cluster did not answer within {answer_s:.0f} s"])
    watchdog.daemon = True
    watchdog.start()
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except ConnectionError:
        return {"error": "no Ray cluster that this machine is a node of was found; start one with `ray start --head`"}
    except Exception as problem:  # other versions of Ray or Python, in Ray's own words
        return {"error": " ".join(str(problem).split())[:400]}
    alive = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
    watchdog.cancel()
    cpus, until = sum(node["Resources"]["CPU"] for node in alive), time.monotonic() + _SETTLE_S
    while (free := ray.available_resources().get("CPU", 0.0)) < cpus and time.monotonic() < until:
        time.sleep(0.2)
    nodes, asked = [], {}
    for node in alive:
        resources, node_id = node["Resources"], node["NodeID"]
        nodes.append({
            "id": node_id, "name": f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})",
            "cpus": resources["CPU"], "gpus": resources.get("GPU", 0.0),
        })  # fmt: skip
        there = NodeAffinitySchedulingStrategy(node_id, soft=False)
        task = ray.remote(examine).options(num_cpus=0, max_retries=0, scheduling_strategy=there)
        asked[node_id] = task.remote(node_id, tokens)
    done, _ = ray.wait(list(asked.values()), num_returns=len(asked), timeout=examine_s) if asked else ([], [])
    for described in nodes:
        answer = asked[described["id"]]
        try:
            described |= ray.get(answer) if answer in done else {"error": f"did not answer within {examine_s:.0f} s"}
        except Exception as problem:
            described["error"] = "could not run a task: " + " ".join(str(problem).split())[:200]
    found = {"address": ray.get_runtime_context().gcs_address, "nodes": nodes, "free_cpus": free}
    ray.shutdown()
    return found


def _give_up(why: str) -> None:
    print(json.dumps({"error": why}), flush=True)
    os._exit(0)


if __name__ == "__main__":
    print(json.dumps(look(**json.loads(sys.argv[1]))), flush=True)
    os._exit(0)  # Ray's threads may outlive the answer
