"""What `polycentre run` says at its end."""

import fake_run
from rich.console import Console

from polycentre.run import _print_details


def test_refusals_stand_apart_from_failures(tmp_path, capsys):
    record = fake_run.deployed(tmp_path / "run")
    _print_details(Console(width=200), record, record.events(), 0.0)
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "centre C refused train b_flow by its own policy (strategies)"
    assert lines[1].startswith("centre C refused round 15 and 1 other job")
    assert len(lines) == 3 and lines[2].startswith("centre 'C' could not train b_gan")
