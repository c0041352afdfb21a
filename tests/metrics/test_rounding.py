"""Measures as they leave: few digits, which follow from the number of patients."""

import math

import pytest

from metrics import METRICS, Metric, shown_metrics, shown_number, shown_share


@pytest.mark.parametrize(("patients", "auroc"), [(1, 0.88), (999, 0.88), (1000, 0.877)])
def test_two_decimals_below_a_thousand_patients_and_three_from_there_on(patients, auroc):
    assert shown_metrics({"auroc": 0.8765432109876, "auroc.mel": 0.8765432}, patients) == {
        "auroc": auroc,
        "auroc.mel": auroc,
    }


def test_what_is_not_defined_travels_as_null_and_a_small_loss_is_no_minus_zero():
    assert shown_metrics({"auroc": math.nan}, 10) == {"auroc": None}
    assert math.copysign(1, shown_share(-0.001, 10)) == 1


def test_a_number_of_another_size_keeps_its_size(monkeypatch):
    monkeypatch.setitem(METRICS.builtin, "cost", Metric("cost", "Cost", lambda labels, probability: 0.0, unit="number"))
    assert shown_metrics({"cost": 0.000123456}, 10) == {"cost": 0.00012}
    assert shown_number(1234.5, 10) == 1200.0 and shown_number(1234.5, 1000) == 1230.0
