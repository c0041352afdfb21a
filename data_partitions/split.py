"""Patient-disjoint splits into training, validation and test, stratified by class and density.

Patients are put in an order that depends on (seed, patient) only, class by class and density by density. In that order
each patient goes to the split that lacks most of its share so far. So within a class every split is always within one
patient of its share, and nearly so within each density of the class, however few patients it has.
Rounding each stratum by itself would leave validation and test without the small strata.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from pydantic import BaseModel, ConfigDict, Field, model_validator

from basics.seeds import rank

SPLITS = ("train", "val", "test")


class SplitRule(BaseModel):
    """Shares of patients; `test_only` puts every patient of the centre into the test split."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    train: float = Field(0.7, ge=0, le=1)
    val: float = Field(0.15, ge=0, le=1)
    test: float = Field(0.15, ge=0, le=1)
    test_only: bool = False

    @model_validator(mode="after")
    def _shares_sum_to_one(self) -> SplitRule:
        total = self.train + self.val + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train + val + test is {total:g}; the shares must sum to 1")
        return self


def split_patients(
    strata: Mapping[str, tuple[int, str]], rule: SplitRule, seed: int, reserved: Collection[str] = ()
) -> dict[str, str]:
    """Split of every patient (or group of patients that must stay together).

    strata: patient -> (class, density). The result does not depend on the order of the mapping. reserved: patients that
    an archive's own split keeps for testing; where there are any they are the test split, and the others are shared out
    between training and validation in the rule's ratio of these two.
    """
    if rule.test_only:
        return dict.fromkeys(strata, "test")
    shares = {"train": rule.train, "val": rule.val, "test": rule.test}
    if reserved:
        learnt = rule.train + rule.val
        shares = (
            {"train": rule.train / learnt, "val": rule.val / learnt, "test": 0.0} if learnt else {**shares, "test": 0.0}
        )
    splits = {patient: "test" for patient in strata if patient in reserved}
    for label in sorted({label for label, _ in strata.values()}):
        members = [patient for patient, stratum in strata.items() if stratum[0] == label and patient not in reserved]
        members.sort(key=lambda patient: (strata[patient][1], rank(seed, "split", patient)))
        given = dict.fromkeys(SPLITS, 0)
        for count, patient in enumerate(members, start=1):
            chosen = max(SPLITS, key=lambda name: shares[name] * count - given[name])  # noqa: B023 (used at once)
            given[chosen] += 1
            splits[patient] = chosen
    return splits
