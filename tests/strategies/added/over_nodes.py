"""Run a study over loopback nodes, each of which does what its centre has approved and nothing else: SCENARIO OUT."""

import sys
from pathlib import Path

from clients.approval import Approvals
from polycentre import deploy
from polycentre.command_line import main
from scenarios.reader import read, resolved_yaml

scenario, out = sys.argv[1:]
resolved = resolved_yaml(read(scenario))
prepare = deploy.prepare


def prepare_careful_nodes(folder, centres, *arguments, **options):
    for settings in centres.values():
        settings["approve"] = {"bundles": "own", "studies": "listed"}
        Approvals(Path(settings["workspace"])).add(resolved)
    prepare(folder, centres, *arguments, **options)


deploy.prepare = prepare_careful_nodes
sys.argv = ["polycentre", "run", scenario, "--deployment", "loopback", "--out", out]
main()
