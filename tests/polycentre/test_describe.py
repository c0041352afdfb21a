"""The plan as it is printed: every centre by itself, or of many those that are alike together."""

import io

from rich.console import Console

from polycentre.describe import print_plan
from scenarios.reader import read


def printed(scenario):
    console = Console(file=io.StringIO(), width=160)
    print_plan(console, scenario, "polycentre run x.yaml")
    return [" ".join(line.replace("│", "|").split()) for line in console.file.getvalue().splitlines()]


def test_few_centres_have_a_row_each(tiny):
    lines = printed(tiny("centres.C.data.scanner=film", "centres.C.roles=[provider]"))
    assert "| A | receiver | patients=24 |" in lines
    assert "| B | provider | patients=24, scanner=film |" in lines
    assert "| C | provider | patients=24, scanner=film |" in lines
    assert any(line.startswith("| b_gan | B | dcgan | lesion | lesion |") for line in lines)
    assert any(line.startswith("| both | one_shot | A | b_gan, c_flow: lesion, pretrain_mix |") for line in lines)


def test_many_centres_that_are_alike_share_a_row():
    lines = printed(read("many_centres"))
    assert "| receiver | receiver | patients=30 |" in lines
    assert "| c01, c04, c07, ..., c49 (17) | provider | patients=4, scanner=film, lesion_fraction=1.0 |" in lines
    assert "| c02, c05, c08, ..., c47 (16) | provider | patients=4, scanner=digital-2, lesion_fraction=1.0 |" in lines
    (row,) = [line for line in lines if line.startswith("| g01")]
    assert row.startswith("| g01, g02, g03, ..., g49 (49) | c01, c02, c03, ..., c49 (49) | dcgan | lesion | lesion |")
    assert "| all | one_shot | receiver | g01, g02, g03, ..., g49 (49): lesion, mix |" in lines
