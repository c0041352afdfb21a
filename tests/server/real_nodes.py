"""What tests over a real SuperLink and real SuperNodes do to them."""

import time

import psutil

from basics.plugins import CENTRE_FILE_VARIABLE
from federation.flower.processes import carrying, kill
from reports.run_record import RunRecord
from scenarios.reader import resolved_yaml


def new_record(scenario, folder):
    return RunRecord.create(folder, resolved_yaml(scenario), {})


def wait_until(condition, process, what, timeout_s=240.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert process is None or process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline, f"timed out waiting until {what}"
        time.sleep(0.1)


def kill_node(running, centre):
    """SIGKILL a node and everything that it does, as when its machine goes down."""
    file = str(running.place.root_certificate.parents[1] / "centres" / centre / "centre.yaml")
    supervisor = [p for p in psutil.process_iter(["cmdline"]) if file in (p.info["cmdline"] or [])]
    assert supervisor
    kill([*supervisor, *carrying(CENTRE_FILE_VARIABLE, file)])


def ended(record):
    return record.events()[-1]["event"] == "run_finished"
