"""Deal out groups of images to centres so that every centre gets its number of images, class by class.

A group is a patient, or patients who share an image; it goes to one centre. Within each class the groups are dealt density
by density, in an order that depends on (seed, name) only, each to the centre that lacks most of its share so far, as in
`split`. Groups have unequal numbers of images, so the leftovers of several classes may add up; a few groups are then
moved, and every centre's total ends within one group of its target.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from basics.seeds import rank

REST = ""  # takes what goes to no centre


@dataclass(frozen=True)
class Group:
    """Images that stay together, with what decides where they go.

    label: malignant, lesion or healthy, the same for every task. feature: the site, scanner or density that most of its
    images have. size: of the breast, in any unit; NaN where it was not measured.
    """

    name: str
    images: int
    label: str = ""
    density: str = ""
    feature: str = ""
    size: float = float("nan")


def deal(groups: Sequence[Group], targets: Mapping[str, Mapping[str, float]], seed: int) -> dict[str, str]:
    """Group -> centre, REST for those left out.

    targets: centre -> class -> number of images; the images that remain go to REST. The result does not depend on the
    order of `groups`. Every centre's total is within the largest
    group of its target.
    """
    labels = sorted({group.label for group in groups})
    totals = {label: sum(group.images for group in groups if group.label == label) for label in labels}
    wanted = {centre: {label: float(own.get(label, 0)) for label in labels} for centre, own in targets.items()}
    wanted[REST] = {
        label: max(0.0, totals[label] - sum(own[label] for centre, own in wanted.items() if centre != REST))
        for label in labels
    }
    home: dict[str, str] = {}
    for label in labels:
        members = [group for group in groups if group.label == label]
        members.sort(key=lambda group: (group.density, rank(seed, "deal", group.name)))
        dealt, given = 0, dict.fromkeys(wanted, 0)
        for group in members:
            dealt += group.images
            share = dealt / totals[label]
            home[group.name] = max(wanted, key=lambda centre: share * wanted[centre][label] - given[centre])  # noqa: B023
            given[home[group.name]] += group.images
    _settle(groups, wanted, home, seed)
    return home


def _settle(
    groups: Sequence[Group], wanted: Mapping[str, Mapping[str, float]], home: dict[str, str], seed: int
) -> None:
    """Move groups from the fullest centre to the emptiest for as long as that brings the two closer to their targets.

    Every move lowers the sum of all deviations, so it ends; and while a centre is off by more than the largest group,
    any group's move does.
    """
    excess = {centre: {label: -n for label, n in own.items()} for centre, own in wanted.items()}
    held: dict[str, list[Group]] = {centre: [] for centre in wanted}
    for group in sorted(groups, key=lambda group: rank(seed, "settle", group.name)):
        held[home[group.name]].append(group)
        excess[home[group.name]][group.label] += group.images
    while True:
        total = {centre: sum(own.values()) for centre, own in excess.items()}
        full, empty = max(total, key=lambda c: total[c]), min(total, key=lambda c: total[c])
        over, under = total[full], -total[empty]
        lean = {label: excess[full][label] - excess[empty][label] for label in excess[full]}
        moved = min(
            held[full],
            key=lambda group: (abs(over - group.images) + abs(under - group.images), -lean[group.label]),
            default=None,
        )
        # Of a group smaller than what both miss together the move is a gain; below 1e-6 it is rounding.
        if moved is None or abs(over - moved.images) + abs(under - moved.images) > over + under - 1e-6:
            return
        held[full].remove(moved)
        held[empty].append(moved)
        excess[full][moved.label] -= moved.images
        excess[empty][moved.label] += moved.images
        home[moved.name] = empty


def in_order(groups: Sequence[Group], sizes: Mapping[str, float]) -> dict[str, str]:
    """Group -> centre by `size`, smallest first: the first centre gets the smallest, the last the largest.

    sizes: centre -> number of images; a group belongs where its middle image falls, so each total is within one group.
    """
    edges = np.cumsum(list(sizes.values()))
    home, before = {}, 0
    for group in sorted(groups, key=lambda group: (group.size, group.name)):
        place = int(np.searchsorted(edges, before + group.images / 2, side="right"))
        home[group.name] = list(sizes)[place] if place < len(sizes) else REST
        before += group.images
    return home


def proportional(sizes: Mapping[str, float], classes: Mapping[str, int]) -> dict[str, dict[str, float]]:
    """Targets with one class mix for all: centre -> class -> images."""
    total = sum(classes.values())
    return {centre: {label: size * n / total for label, n in classes.items()} for centre, size in sizes.items()}


def label_skew(
    sizes: Mapping[str, float], classes: Mapping[str, int], alpha: float, rng: np.random.Generator
) -> dict[str, dict[str, float]]:
    """Targets whose class mix differs: each centre's is drawn from Dirichlet(alpha * overall mix) (Hsu et al. 2019).

    sizes: images per centre; classes: images per class. What was drawn is then scaled, rows and columns in turn
    (iterative proportional fitting), until the centres have their sizes and no class is asked for more than it holds:
    the archive is finite, and the scenario, not the draw, sets a centre's number of images.
    """
    total, labels = sum(classes.values()), list(classes)
    prior = np.array([classes[label] / total for label in labels])
    mixes = np.array([rng.dirichlet(alpha * prior) for _ in sizes])
    rest = total - sum(sizes.values())
    rows = np.array([*sizes.values(), max(rest, 0.0)], dtype=np.float64)
    # A Dirichlet with a small alpha yields exact zeros, which no scaling could fill.
    table = np.maximum(np.vstack([mixes, prior]), 1e-9) * rows[:, None]
    columns = np.array([float(classes[label]) for label in labels])
    for _ in range(2000):
        table *= columns / table.sum(axis=0)
        sums = table.sum(axis=1)
        if np.abs(sums - rows).max() <= 1e-6 * total:
            break
        table *= np.divide(rows, sums, out=np.zeros_like(rows), where=sums > 0)[:, None]
    return {
        centre: {label: float(n) for label, n in zip(labels, row, strict=True)}
        for centre, row in zip(sizes, table, strict=False)
    }


def quantity_skew(centres: Sequence[str], images: int, alpha: float, minimum: int, rng: np.random.Generator) -> dict:
    """Sizes drawn from Dirichlet(alpha) over the centres (Li et al. 2022), each at least `minimum`: centre -> images."""
    shares = rng.dirichlet(np.full(len(centres), alpha))
    free = images - minimum * len(centres)
    return {centre: minimum + free * float(share) for centre, share in zip(centres, shares, strict=True)}
