"""From tidy results to the main table: mean and standard deviation over repeats, and differences paired by repeat."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from metrics.classification import OF
from reports.kinds import Kinds, MetricWords
from reports.study import Arm, Study

# (arm, task) -> what went wrong in its federation, in a line.
Troubles = Mapping[tuple[str, str], str]
# The one that findings and differences are about: it depends neither on a threshold nor on the prevalence.
PRIMARY = "auroc"
_PRIMARY = Kinds().metrics[PRIMARY]


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation (n - 1) of n values; the mean is NaN for none, the deviation for fewer than two."""

    n: int
    mean: float
    sd: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        v = np.array([x for x in values if not math.isnan(x)], float)
        return cls(len(v), float(v.mean()) if len(v) else math.nan, float(v.std(ddof=1)) if len(v) > 1 else math.nan)


@dataclass(frozen=True)
class Difference:
    """Differences to the baseline, repeat by repeat. A tie is neither better nor worse."""

    spread: Spread
    better: int
    worse: int

    @classmethod
    def of(cls, values: dict[int, float], baseline: dict[int, float]) -> Difference:
        """values, baseline: repeat -> value. A repeat that one of the two lacks is left out."""
        pairs = [values[r] - baseline[r] for r in sorted(values.keys() & baseline.keys())]
        pairs = [d for d in pairs if not math.isnan(d)]
        return cls(Spread.of(pairs), sum(d > 0 for d in pairs), sum(d < 0 for d in pairs))


@dataclass(frozen=True)
class Setting:
    """What a comparison of arms holds fixed."""

    receiver: str
    task: str
    classifier: str
    real_fraction: float | str

    @property
    def size(self) -> str:
        """How much real data the receiver used: "all real images", "50 % of real images", "200 real images"."""
        if isinstance(self.real_fraction, str):
            return self.real_fraction or "all real images"
        if math.isnan(self.real_fraction) or self.real_fraction == 1:
            return "all real images"
        if self.real_fraction > 1:
            return f"{self.real_fraction:.0f} real images"
        return f"{100 * self.real_fraction:.4g} % of real images"


@dataclass(frozen=True)
class Row:
    """One arm within a setting. `values[centre, metric]`: repeat -> value, as a fraction (0.85 is 85 %)."""

    arm: Arm
    n_real: float
    n_synthetic: float
    values: dict[tuple[str, str], dict[int, float]]

    def spread(self, centre: str, metric: str) -> Spread:
        return Spread.of(self.values.get((centre, metric), {}).values())


@dataclass(frozen=True)
class Block:
    """All arms of one setting; `tested_on` begins with the receiver itself, the others are out of its domain."""

    setting: Setting
    tested_on: tuple[str, ...]
    rows: tuple[Row, ...]

    @property
    def baseline(self) -> Row | None:
        return next((row for row in self.rows if row.arm.role == "baseline"), None)

    def difference(self, row: Row, centre: str) -> Difference | None:
        """In `PRIMARY`, against the baseline; None for the baseline itself or when there is none."""
        if self.baseline is None or row.arm.role == "baseline":
            return None
        return Difference.of(row.values.get((centre, PRIMARY), {}), self.baseline.values.get((centre, PRIMARY), {}))


def blocks(results: pd.DataFrame, study: Study) -> list[Block]:
    """Group results.csv into settings, arms in the scenario's order, larger shares of real data first."""
    order = {name: i for i, name in enumerate(study.arms)}
    found = []
    keys = ["receiver", "task", "classifier", "real_fraction"]
    for key, part in results.groupby(keys, sort=False, dropna=False):
        setting = Setting(*key)  # type: ignore[arg-type]  # pandas types the key as one scalar
        others = sorted(set(part["tested_on"]) - {setting.receiver})
        rows = [
            Row(
                study.arm(str(name), own["strategy"].iloc[0]),
                float(own["n_real"].mean()),
                float(own["n_synthetic"].mean()),
                {
                    (str(centre), str(metric)): dict(zip(group["repeat"].astype(int), group["value"], strict=True))
                    for (centre, metric), group in own.groupby(["tested_on", "metric"])
                },
            )
            for name, own in part.groupby("arm")
        ]
        rows.sort(key=lambda row: (order.get(row.arm.name, len(order)), row.arm.name))
        found.append(Block(setting, (setting.receiver, *others), tuple(rows)))

    def by_size(block: Block) -> tuple[Any, ...]:
        s = block.setting
        size = s.real_fraction if isinstance(s.real_fraction, float | int) else math.inf
        return (s.receiver, s.task, s.classifier, -size, str(s.real_fraction))

    return sorted(found, key=by_size)


@dataclass(frozen=True)
class EvaluationSet:
    """What a number was measured on. `shown`: how many images show each class, of two classes the second alone."""

    cases: int
    patients: int
    shown: dict[str, int]


def evaluation_sets(predictions: pd.DataFrame) -> dict[tuple[str, str], EvaluationSet]:
    """(task, centre) -> its test set, which is the same for every arm, classifier, receiver and repeat."""
    found = {}
    for (task, centre), part in predictions.groupby(["task", "tested_on"]):
        cases = part.drop_duplicates("case")
        found[str(task), str(centre)] = EvaluationSet(len(cases), cases["patient"].nunique(), _shown(part))
    return found


def _shown(part: pd.DataFrame) -> dict[str, int]:
    once = part.drop_duplicates(["case", "class"])
    return {str(name): int((own["label"] == 1).sum()) for name, own in once.groupby("class", sort=False)}


def mean_and_sd(spread: Spread, metric: MetricWords = _PRIMARY) -> tuple[str, str]:
    """("85.3", "1.2"): a share in percent, a number as it is. "–" for no value; "" for the deviation of fewer than two."""
    if spread.n == 0:
        return "–", ""
    mean, sd = (
        f"{100 * value:.1f}" if metric.unit == "share" else f"{value:.3g}" for value in (spread.mean, spread.sd)
    )
    return mean, sd if spread.n > 1 else ""


def spread_text(spread: Spread, metric: MetricWords = _PRIMARY) -> str:
    """ "85.3 (1.2)", "85.3" for a single value, "–" for none."""
    mean, sd = mean_and_sd(spread, metric)
    return f"{mean} ({sd})" if sd else mean


def heading(metric: MetricWords = _PRIMARY) -> str:
    """The title of a metric, with its direction where that is not the usual one."""
    return metric.title if metric.higher_is_better else f"{metric.title} (lower is better)"


def not_percent(metrics: Iterable[MetricWords]) -> str:
    """ "Not in percent: Brier score."; "" when all are shares."""
    numbers = [metric.title for metric in metrics if metric.unit == "number"]
    return f"Not in percent: {', '.join(numbers)}." if numbers else ""


def points(value: float) -> str:
    """A difference in percentage points with its sign: "+2.1", "−0.4" (a minus sign, not a hyphen), "0.0"."""
    text = f"{100 * value:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "\N{MINUS SIGN}")


def difference_text(difference: Difference | None) -> str:
    """ "+2.1 (0.8), 3/3", "" for the baseline, "–" when no repeat has both values."""
    if difference is None:
        return ""
    s = difference.spread
    if s.n == 0:
        return "–"
    return points(s.mean) + (f" ({100 * s.sd:.1f})" if s.n > 1 else "") + f", {difference.better}/{s.n}"


def role_text(arm: Arm) -> str:
    """What to add to an arm's name if it is not a candidate."""
    return {
        "baseline": "baseline",
        "control": "control",
        "upper bound": "real images moved: upper bound",
        "candidate": "",
    }[arm.role]


def count_text(value: float) -> str:
    """A number of images, which a mean over repeats may make fractional; "–" when unknown."""
    return "–" if math.isnan(value) else f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def setting_text(setting: Setting) -> str:
    """ "A: lesion, cnn_small, 50 % of real images" """
    return f"{setting.receiver}: {setting.task}, {setting.classifier}, {setting.size}"


def block_title(block: Block) -> str:
    """ "At A: lesion, cnn_small, 50 % of real images (120)" """
    n_real = block.baseline.n_real if block.baseline else math.nan
    return f"At {setting_text(block.setting)}" + (f" ({count_text(n_real)})" if not math.isnan(n_real) else "")


def metrics_of(found: Sequence[Block], study: Study) -> dict[str, MetricWords]:
    """The metrics that were measured: those of every study in its order, then those of plug-ins; an unknown one by its name."""
    seen = {metric for block in found for row in block.rows for _, metric in row.values}
    known = {name: words for name, words in study.metrics.items() if name in seen}
    # A value of one class, such as auroc.mel, has a table of its own.
    unknown = sorted(name for name in seen if name.partition(OF)[0] not in study.metrics)
    return known | {name: MetricWords(name) for name in unknown}


def classes_of(block: Block, metric: str) -> list[str]:
    """The classes of which a metric was measured each by itself, in the order of the record."""
    names = dict.fromkeys(name for row in block.rows for _, name in row.values)
    return [name.removeprefix(metric + OF) for name in names if name.startswith(metric + OF)]


def troubles_of(block: Block, troubles: Troubles) -> list[str]:
    """The lines about the arms of a table, in its order of rows."""
    keys = [(row.arm.name, block.setting.task) for row in block.rows]
    return [troubles[key] for key in keys if key in troubles]


def unplaced(troubles: Troubles, found: Sequence[Block]) -> list[str]:
    """The lines about arms that no table shows."""
    shown = {(row.arm.name, block.setting.task) for block in found for row in block.rows}
    return [line for key, line in troubles.items() if key not in shown]


def evaluation_text(block: Block, centre: str, study: Study, sets: dict[tuple[str, str], EvaluationSet]) -> str:
    """ "Tested at A: 120 images of 60 patients, 50 % lesion (the positive class)." """
    task = block.setting.task
    where = f"Tested at {centre}" + ("" if centre == block.setting.receiver else " (out of domain)")
    classes = study.classes.get(task) or ("label 0", "label 1")
    found = sets.get((task, centre))
    if len(classes) > 2:
        macro = f"Macro averages over {len(classes)} classes"
        if found is None:
            return f"{where}: {macro}; how many images show each is not in this record."
        shares = ", ".join(f"{100 * n / found.cases:.0f} % {name}" for name, n in found.shown.items() if n)
        absent = [name for name, n in found.shown.items() if not n]
        left_out = f" No image shows {', '.join(absent)}: not defined, and left out of the averages." if absent else ""
        return f"{where}: {found.cases} images of {found.patients} patients: {shares}. {macro}.{left_out}"
    if found is None:
        return f"{where}: positive class {classes[1]}; its prevalence is not in this record."
    share = f"{100 * found.shown.get(classes[1], 0) / found.cases:.0f} % {classes[1]} (the positive class)"
    return f"{where}: {found.cases} images of {found.patients} patients, {share}."
