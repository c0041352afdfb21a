"""Pure measurement: arrays in, numbers out."""

from metrics.classification import METRICS, Metric

__all__ = ["METRICS", "Metric"]
