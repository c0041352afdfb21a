"""A deployment of real processes."""

from pathlib import Path

import pytest
from real_nodes import new_record

from federation.flower.operator import Operator
from federation.flower.processes import OwnProcesses
from polycentre.deploy import trial
from server.app import begin

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def deployment(tmp_path):
    """Function: start a study over real nodes; returns (deployment, operator, record)."""
    running = []

    def begin_study(scenario, node_wait_s, change=lambda folder, address: None):
        record = new_record(scenario, tmp_path / "run")
        processes = OwnProcesses()
        running.append(processes)
        places = {c: {"workspace": tmp_path / c / "work", "cache": tmp_path / c / "cache"} for c in scenario.centres}
        made = trial(processes, processes.home / "trial", places, tmp_path / "superlink.log")
        change(processes.home / "trial", made.link.address)
        made.start()
        begin(record)
        operator = Operator(CHECKOUT, tmp_path, made.place, processes)
        operator.start()
        config = {
            "out": str(record.folder),
            "cache": str(tmp_path),
            "begun": True,
            "deployed": True,
            "node_wait_s": node_wait_s,
        }
        operator.submit(config)
        return made, operator, record

    yield begin_study
    for processes in running:
        processes.stop()
