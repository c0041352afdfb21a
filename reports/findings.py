"""One plain sentence per arm, computed from the numbers and claiming no more than they carry.

"Helped" and "hurt" need three things: at least three repeats, practically all of them on the same side and by more than
their own spread, and at least ten test patients, enough that drawing others would not turn the sign. What lacks one is
unclear.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from reports.kinds import Kinds
from reports.patient_bootstrap import auroc_draws, interval
from reports.study import Arm
from reports.tables import Block, Difference, Row, Setting, heading, points

Verdict = Literal["helped", "hurt", "unclear", "too few repeats", "not measured"]
FEWEST_REPEATS = 3
# Of fewer test patients a bootstrap knows too little of how patients differ: its interval is too narrow.
FEWEST_PATIENTS = 10
# Class of a verdict's badge in the page.
BADGES: dict[Verdict, str] = {
    "helped": "helped", "hurt": "hurt", "unclear": "unclear", "too few repeats": "few", "not measured": "none",
}  # fmt: skip
# Below this many repeats the report says that spreads are rough.
ROUGH_BELOW = 5

Interval = tuple[float, float]


@dataclass(frozen=True)
class Finding:
    """What one arm did to AUROC at one test centre, against the baseline."""

    arm: Arm
    difference: Difference
    interval: Interval | None  # over test patients, as fractions; None when predictions are not in the record
    patients: int | None  # in the test set; None likewise
    verdict: Verdict
    sentence: str


def findings(block: Block, centre: str, predictions: pd.DataFrame, kinds: Kinds) -> list[Finding]:
    """One finding per arm other than the baseline, tested at `centre`, in the table's order; none without a baseline.

    predictions: predictions.csv; without rows there is no interval over test patients.
    """
    if block.baseline is None:
        return []
    here = _of_setting(block.setting, centre, predictions)
    baseline = auroc_draws(here[here["arm"] == block.baseline.arm.name])
    found = []
    for row in block.rows:
        difference = block.difference(row, centre)
        if difference is None:
            continue
        over_patients = interval(auroc_draws(here[here["arm"] == row.arm.name]), baseline)
        patients = here["patient"].nunique() or None
        verdict = judge(difference, over_patients, patients)
        sentence = _sentence(row, difference, over_patients, patients, verdict, kinds)
        found.append(Finding(row.arm, difference, over_patients, patients, verdict, sentence))
    return found


def judge(difference: Difference, over_patients: Interval | None, patients: int | None = None) -> Verdict:
    """See the head of this file."""
    s = difference.spread
    if s.n == 0:
        return "not measured"
    if s.n < FEWEST_REPEATS:
        return "too few repeats"
    if abs(s.mean) <= s.sd or (over_patients is not None and over_patients[0] <= 0 <= over_patients[1]):
        return "unclear"
    if not _agree(difference) or (patients is not None and patients < FEWEST_PATIENTS):
        return "unclear"
    return "helped" if s.mean > 0 else "hurt"


def _agree(difference: Difference) -> bool:
    """All repeats on one side, or from ten repeats on nine of ten."""
    n = difference.spread.n
    return n - max(difference.better, difference.worse) <= n // 10


def _sentence(
    row: Row,
    difference: Difference,
    over_patients: Interval | None,
    patients: int | None,
    verdict: Verdict,
    kinds: Kinds,
) -> str:
    s = difference.spread
    if verdict == "not measured":
        return f"{row.arm.name}: no repeat has both this arm and the baseline."
    what = _what(row, kinds)
    details = ([f"sd {100 * s.sd:.1f}"] if s.n > 1 else []) + [f"{difference.better} of {s.n} repeats better"]
    numbers = f"{heading()} by {points(s.mean)} points ({', '.join(details)}"
    if over_patients is not None:
        numbers += (
            f"; 95 % interval over {patients} test patients {points(over_patients[0])} to {points(over_patients[1])}"
        )
    if verdict in ("helped", "hurt"):
        return f"{what} {verdict}: it changed {numbers})."
    return f"{what} changed {numbers}). {_doubt(difference, verdict)}"


def _what(row: Row, kinds: Kinds) -> str:
    """What the arm does, as the subject of a sentence."""
    arm = row.arm
    if not arm.shares:
        return f"Arm {arm.name}, which shares nothing,"
    if arm.pixels and not arm.trains_generator:
        return f"Moving real images of {', '.join(arm.sources)} ({arm.name})"
    # A classifier that was trained together adds no images.
    return f"Adding {arm.name}" if row.n_synthetic > 0 else f"Arm {arm.name} ({kinds.strategy_title(arm.strategy)})"


def _doubt(difference: Difference, verdict: Verdict) -> str:
    s = difference.spread
    if verdict == "too few repeats":
        return f"{s.n} repeat{'s' if s.n > 1 else ''} cannot show whether that is more than chance."
    if _agree(difference) and abs(s.mean) > s.sd:
        return "The repeats agree, but there are too few test patients to rule out that there is no effect."
    return (
        "It did not help here."
        if s.mean <= 0
        else "No clear gain: repeats disagree or scatter by more than the change."
    )


def caution(found: Sequence[Finding]) -> str:
    """What a reader must know before believing any of it; "" when there is nothing to say."""
    n = min((f.difference.spread.n for f in found if f.difference.spread.n), default=0)
    if not n:
        return ""
    chance = 2 ** (1 - n)
    text = ""
    if n < ROUGH_BELOW:
        text = f"With {n} repeat{'s' if n > 1 else ''} all spreads are rough" + (
            f" (an arm without any effect has all {n} repeats on one side in {100 * chance:.0f} % of studies). "
            if n > 1
            else ". "
        )
    text += (
        "sd is the standard deviation over repeats: a repeat trains the classifier anew, on a new draw"
        " of the receiver's patients where fewer than all are used. "
        "Each generator was trained once, so these numbers do not contain the luck of its own training."
    )
    if any(f.interval is None for f in found):
        text += " Nor is that of the test patients, where no interval is given: the record lacks their predictions."
    return text


def _of_setting(setting: Setting, centre: str, predictions: pd.DataFrame) -> pd.DataFrame:
    size = predictions["real_fraction"]
    same_size = size.isna() if _is_nan(setting.real_fraction) else size == setting.real_fraction
    return predictions[
        same_size
        & (predictions["receiver"] == setting.receiver)
        & (predictions["tested_on"] == centre)
        & (predictions["task"] == setting.task)
        & (predictions["classifier"] == setting.classifier)
    ]


def _is_nan(value: float | str) -> bool:
    return isinstance(value, float) and math.isnan(value)
