"""Of whom sums left: which sums are too alike, over all that ever left, and that no name is kept."""

import json

import numpy as np
import pytest

from clients import cohorts
from clients.node import Node, Refusal


def even(name):
    """Whether somebody belongs to the first half."""
    return int(name[-2:]) % 2 == 0


class Summed:
    """One patch of each of some people."""

    def __init__(self, people, other_patches=()):
        self.names = dict(enumerate(people))
        self.table = {"patient": np.arange(len(people))}
        self.other = set(other_patches)

    def people(self):
        return self.names

    def hold(self, node, fewest=20):
        rows = np.arange(len(self.names))
        return cohorts.hold(node, self, rows, np.array([even(name) for name in self.names.values()]), fewest)

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
    ("people", "other", "outcome"),
    [
        (people(0, 40), (), "as asked"), (people(0, 39), (), "refused"), (people(1, 40), (), "refused"),
        (people(0, 41), (), "earlier"), (people(0, 59), (), "earlier"), (people(0, 79), (), "earlier"),  # 19 in a half
        (people(0, 80), (), "as asked"), (people(20, 60), (), "as asked"), (people(19, 59), (), "refused"),
        (people(0, 40), people(0, 1), "refused"), (people(0, 40), people(0, 39), "refused"),
        (people(0, 40), people(0, 40), "as asked"), (people(0, 41), people(0, 1), "refused"),
        (people(0, 41), people(0, 40), "earlier"), (people(0, 39), people(0, 39), "refused"),
    ],
)  # fmt: skip
def test_a_sum_that_differs_by_a_few_is_made_over_the_earlier_people_or_refused(people, other, outcome, node):
    first = [f"Doe {number:02d}" for number in range(40)]
    Summed(first).hold(node)
    before = (node.workspace / cohorts.FILE).read_bytes()
    if outcome == "refused":
        with pytest.raises(Refusal) as refusal:
            Summed(people, other).hold(node)
        assert (refusal.value.code, refusal.value.numbers) == ("too_alike", {"need": 20})
        assert (node.workspace / cohorts.FILE).read_bytes() == before, "what did not leave is not remembered"
        return
    rows, in_first, frozen = Summed(people, other).hold(node)
    summed = [people[row] for row in rows]
    assert frozen == (outcome == "earlier") and summed == (first if frozen else people)
    assert [name for name, half in zip(summed, in_first, strict=True) if half] == [n for n in summed if even(n)]


def test_all_that_ever_left_is_compared_and_the_same_is_kept_once(node):
    for first in (0, 40, 80, 0):
        Summed(people(first, first + 40)).hold(node)
    assert len(json.loads((node.workspace / cohorts.FILE).read_text())) == 3
    with pytest.raises(Refusal):
        Summed(people(40, 79)).hold(node)


def test_only_keyed_hashes_are_kept(node, tmp_path):
    Summed(people(0, 40)).hold(node)
    other = Node("B", tmp_path / "other", tmp_path, deployed=True)
    other.workspace.mkdir()
    Summed(people(0, 40)).hold(other)
    texts = [(one.workspace / cohorts.FILE).read_text() for one in (node, other)]
    assert "Doe" not in texts[0] and texts[0] != texts[1], "another node has another key"


def test_a_file_that_cannot_be_read_lets_nothing_out(node):
    (node.workspace / cohorts.FILE).write_text("[{")
    with pytest.raises(ValueError, match="Expecting"):
        Summed(people(0, 40)).hold(node)
