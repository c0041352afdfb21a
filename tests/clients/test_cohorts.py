"""Of whom sums left: which sums are too alike, over all that ever left, and that no name is kept."""

import json

import numpy as np
import pytest

from clients import cohorts
from clients.node import Node, Refusal


class Summed:
    """One patch of each of some people."""

    def __init__(self, people, other_patches=()):
        self.names = dict(enumerate(people))
        self.table = {"patient": np.arange(len(people))}
        self.other = set(other_patches)

    def people(self):
        return self.names

    def stored(self):
        return np.array(
            [[[[len(name), *name.encode()[:6], name in self.other]]] for name in self.names.values()], np.uint8
        )


def people(first, last):
    return [f"Doe {number:02d}" for number in range(first, last)]


@pytest.fixture
def node(tmp_path):
    return Node("B", tmp_path, tmp_path, deployed=True)


@pytest.mark.parametrize(
    ("people", "other", "held"),
    [
        (people(0, 40), (), True), (people(0, 39), (), False), (people(1, 40), (), False), (people(0, 41), (), False),
        (people(0, 59), (), False), (people(0, 60), (), True), (people(10, 50), (), True), (people(9, 49), (), False),
        (people(0, 40), people(0, 1), False), (people(0, 40), people(0, 19), False), (people(0, 40), people(0, 20), True),
        (people(0, 39), people(0, 39), False),
    ],
)  # fmt: skip
def test_a_sum_that_differs_by_a_few_is_refused(people, other, held, node):
    first = [f"Doe {number:02d}" for number in range(40)]
    cohorts.hold(node, [Summed(first)], 20)
    if held:
        return cohorts.hold(node, [Summed(people, other)], 20)
    before = (node.workspace / cohorts.FILE).read_bytes()
    with pytest.raises(Refusal) as refusal:
        cohorts.hold(node, [Summed(people, other)], 20)
    assert (refusal.value.code, refusal.value.numbers) == ("too_alike", {"need": 20})
    assert (node.workspace / cohorts.FILE).read_bytes() == before, "what did not leave is not remembered"
    return None


def test_all_that_ever_left_is_compared_and_the_same_is_kept_once(node):
    for first in (0, 40, 80, 0):
        cohorts.hold(node, [Summed(people(first, first + 40))], 20)
    assert len(json.loads((node.workspace / cohorts.FILE).read_text())) == 3
    with pytest.raises(Refusal):
        cohorts.hold(node, [Summed(people(40, 79))], 20)


def test_only_keyed_hashes_are_kept(node, tmp_path):
    cohorts.hold(node, [Summed(people(0, 40))], 20)
    other = Node("B", tmp_path / "other", tmp_path, deployed=True)
    other.workspace.mkdir()
    cohorts.hold(other, [Summed(people(0, 40))], 20)
    texts = [(one.workspace / cohorts.FILE).read_text() for one in (node, other)]
    assert "Doe" not in texts[0] and texts[0] != texts[1], "another node has another key"


def test_a_file_that_cannot_be_read_lets_nothing_out(node):
    (node.workspace / cohorts.FILE).write_text("[{")
    with pytest.raises(ValueError, match="Expecting"):
        cohorts.hold(node, [Summed(people(0, 40))], 20)
