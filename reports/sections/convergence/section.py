"""The section "Convergence": did the centres' generators get good sooner together than alone?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from reports.quantities import duration
from reports.section import Card, Context, Section
from reports.sections.convergence.figure import CENTRES_SHOWN, convergence_figure
from reports.sections.convergence.first_crossing import (
    MEASURES,
    PAPER_RATIO,
    Bounds,
    Convergence,
    convergences,
    smallest_centre,
)
from reports.study import Study
from reports.tables import count_text

# Rows of the table per arm and measure; of more centres than this, the smallest ones and a summary.
ROWS_SHOWN = 20
# "<5" of a data card, where it is compared.
_AT_MOST = 4

_TEMPLATE = """
<p class="soft">How many real images each centre's discriminator had to see until the generator was as good as one trained
on pooled data: the target is that model's last measured distance to real images. Reached means the first crossing,
by straight lines between the measured rounds; a later rise does not undo it. The ratio is images seen alone over images
seen in the federation, so above 1 the federation was faster. The floor is the distance of one half of the real reference
to the other: nothing below it means anything. This is one training with one seed: no spread is known.</p>
<ul class="findings one">{% for s in sentences %}<li><strong>{{ s.about }}</strong><span>{{ s.text }}</span></li>
{% endfor %}</ul>
{{ picture(curves, "Distance to real images, logarithmic, lower is better. Solid: in the federation; "
     ~ "dashed, open marks: the centre alone; dash-dotted: one model on pooled data, over the images it saw itself. "
     ~ "Lines of centres that saw equally many images lie on each other and show their marks by turns.") }}
{% if left_out %}<p class="note">{{ left_out }}</p>{% endif %}
{{ plain_table(table) }}
"""


def _build(context: Context) -> dict[str, Any] | None:
    return convergence_section(context.record.convergence(), context.study, context.cards)


CONVERGENCE = Section("convergence", "Convergence", "Convergence", _build, _TEMPLATE)


def convergence_section(table: pd.DataFrame, study: Study, cards: dict[tuple[str, str], Card]) -> dict[str, Any] | None:
    """Figure, table and a sentence for each arm and measure; None when no federation was measured.

    table: convergence.csv. cards: (task, centre) -> data card, from which the smallest centre is known.
    """
    found = convergences(table, study)
    if not found:
        return None
    groups: dict[tuple[str, str, str], list[Convergence]] = {}
    for c in found:
        groups.setdefault((c.arm, c.task, c.metric), []).append(c)
    sizes = {(arm, task): training_images(study, cards, arm, task) for arm, task, _ in groups}
    centres = {(arm, task): [c.centre for c in group] for (arm, task, _), group in groups.items()}
    shown = {key: _drawn(sizes[key], centres[key]) for key in centres}
    return {
        "curves": convergence_figure(table, found, shown),
        "sentences": [_sentence(group, sizes[arm, task], study) for (arm, task, _), group in groups.items()],
        "table": _table(groups, sizes, study),
        "left_out": _left_out(centres),
    }


def training_images(study: Study, cards: dict[tuple[str, str], Card], arm: str, task: str) -> dict[str, int]:
    """Centre -> training images that a generator of this arm learns from: of the classes that it makes.

    A count that the centre gave as "<5" is taken as 4. Centres without a data card are left out.
    """
    classes = study.made(arm, task)
    sizes = {}
    for (card_task, centre), card in cards.items():
        train = (card.get("boxes") or {}).get("train") or {}
        if card_task == task and all(name in train for name in classes):
            sizes[centre] = sum(n if isinstance(n := train[name], int) else _AT_MOST for name in classes)
    return sizes


def _drawn(sizes: dict[str, int], centres: Sequence[str]) -> list[str]:
    """All centres, or of many some from the smallest to the largest, evenly by rank."""
    if len(centres) <= CENTRES_SHOWN:
        return list(centres)
    ranked = sorted(centres, key=lambda centre: sizes.get(centre, 0))
    return [ranked[round(i)] for i in np.linspace(0, len(ranked) - 1, CENTRES_SHOWN)]


def _left_out(centres: dict[tuple[str, str], list[str]]) -> str:
    most = max(map(len, centres.values()))
    parts = []
    if most > CENTRES_SHOWN:
        parts.append(
            f"Of up to {count_text(most)} centres the figure shows {CENTRES_SHOWN}, from the smallest to the largest."
        )
    if most > ROWS_SHOWN:
        parts.append(
            f"The table shows the {ROWS_SHOWN} smallest centres of each arm; the rows “all” are over every centre, "
            "with the smallest, median and largest ratio."
        )
    return " ".join(parts)


# -- table ---------------------------------------------------------------------------------------------------------


def _table(
    groups: dict[tuple[str, str, str], list[Convergence]], sizes: dict[tuple[str, str], dict[str, int]], study: Study
) -> dict[str, Any]:
    several = len({task for _, task, _ in groups}) > 1
    rows = []
    for (arm, task, _), group in groups.items():
        own = sizes[arm, task]
        shown = sorted(group, key=lambda c: own.get(c.centre, 0))[:ROWS_SHOWN] if len(group) > ROWS_SHOWN else group
        rows += [_row(c, own, several) for c in shown]
        if len(group) > ROWS_SHOWN:
            rows.append(_summary(group, several))
    return {
        "caption": "Images seen until the target, by first crossing.",
        "header": [
            "Arm", "Measure", "Centre", "Training images", "Target", "Floor", "At the end", "Images, in the federation",
            "Images, alone", "Ratio", "Simulated time",
        ],
        "text": [True, True, True] + [False] * 8,
        "rows": rows,
    }  # fmt: skip


def _row(c: Convergence, sizes: dict[str, int], several_tasks: bool) -> list[str]:
    return [
        c.arm + (f", {c.task}" if several_tasks else ""),
        MEASURES.get(c.metric, c.metric),
        c.centre,
        count_text(float(sizes.get(c.centre, np.nan))),
        _number(c.target),
        _number(c.floor),
        _number(c.final),
        _images(c.federation),
        _images(c.alone),
        _ratio(c.ratio),
        _time(c.seconds),
    ]


def _summary(group: Sequence[Convergence], several_tasks: bool) -> list[str]:
    c = group[0]
    together, alone = [c.federation for c in group if c.federation], [c.alone for c in group if c.alone]
    return [
        c.arm + (f", {c.task}" if several_tasks else ""),
        MEASURES.get(c.metric, c.metric),
        f"all {count_text(len(group))}",
        "", _number(c.target), _number(c.floor), "",
        f"reached by {count_text(sum(own.reached for own in together))}" if together else "–",
        f"reached by {count_text(sum(own.reached for own in alone))} of {count_text(len(alone))}" if alone else "–",
        " / ".join(_ratio(ratio) for ratio in _middle([own.ratio for own in group])),
        "",
    ]  # fmt: skip


def _middle(ratios: Sequence[Bounds]) -> list[Bounds]:
    """Smallest, median and largest ratio. Each lies between that of the lower bounds and that of the upper ones."""
    low, high = [ratio.low for ratio in ratios], [ratio.high for ratio in ratios]
    return [Bounds(float(choose(low)), float(choose(high))) for choose in (np.min, np.median, np.max)]


def _number(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.3g}"


def _images(bounds: Bounds | None) -> str:
    if bounds is None:
        return "–"
    if not bounds.reached:
        return f"not reached ({count_text(bounds.low)} seen)"
    return ("" if bounds.exact else "at most ") + count_text(bounds.high)


def _ratio(ratio: Bounds) -> str:
    if ratio.exact:
        return f"{ratio.low:.1f}"
    if ratio.low > 0 and not ratio.reached:
        return f"over {ratio.low:.1f}"
    return f"under {ratio.high:.1f}" if ratio.reached else "–"


def _time(bounds: Bounds | None) -> str:
    if bounds is None:
        return "–"
    if not bounds.reached:
        return "not reached"
    return ("" if bounds.exact else "at most ") + duration(bounds.high)


# -- the sentence --------------------------------------------------------------------------------------------------


def _sentence(group: Sequence[Convergence], sizes: dict[str, int], study: Study) -> dict[str, str]:
    """What the paper says of its smallest centre, said of this one; or why it cannot be said."""
    first = group[0]
    several = len({c.task for c in group}) > 1 or len(study.classes) > 1
    name = f"{first.arm}, {first.task}" if several else first.arm
    about = f"{name}, {MEASURES.get(first.metric, first.metric)}"
    smallest = smallest_centre(sizes, [c.centre for c in group])
    if smallest is None:
        text = "Which centre is the smallest cannot be said: the record does not hold the data cards of all of them"
        return {"about": about, "text": f"{text}."}
    c = next(c for c in group if c.centre == smallest)
    who = f"smallest centre ({smallest}, {count_text(sizes[smallest])} images)"
    faster = _faster(c.ratio)
    if faster:
        text = f"The {who} reached the target {faster} (paper: {PAPER_RATIO})."
    else:
        text = f"Whether the {who} was faster than alone cannot be said: {_why_not(c)}."
    if c.target <= c.floor:
        text += " The target lies within the floor: this measure does not distinguish the central model's images from real ones."
    return {"about": about, "text": text}


def _faster(ratio: Bounds) -> str:
    """ "1.6 times faster than alone", "at least 2.0 times slower than alone"; "" when it cannot be said."""
    if ratio.exact and ratio.low > 0:
        x = ratio.low
        if f"{max(x, 1 / x):.1f}" == "1.0":
            return "as fast as alone"
        return f"{x:.1f} times faster than alone" if x > 1 else f"{1 / x:.1f} times slower than alone"
    if ratio.low > 1:
        return f"more than {ratio.low:.1f} times faster than alone"
    return f"more than {1 / ratio.high:.1f} times slower than alone" if 0 < ratio.high < 1 else ""


def _why_not(c: Convergence) -> str:
    if not c.central_arm:
        return "there is no target, since the record holds no model of pooled data"
    if c.federation is None or c.alone is None:
        return f"{c.centre} was not measured " + ("in the federation" if c.federation is None else "alone")
    reasons = [
        (
            f"{where} it did not reach the target within {count_text(bounds.low)} images"
            if not bounds.reached
            else f"{where} it was below the target at the first measured round already"
        )
        for where, bounds in (("in the federation", c.federation), ("alone", c.alone))
        if not bounds.exact or bounds.high == 0
    ]
    return " and ".join(reasons)
