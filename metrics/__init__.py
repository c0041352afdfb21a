"""Pure measurement: arrays in, numbers out."""

from metrics.classification import METRICS, Metric, measure, measured_names, selection_score
from metrics.feature_spaces import FEATURE_SPACES, FeatureSpace
from metrics.frechet import FeatureSums, frechet_distance, half_split_floor, split_in_halves
from metrics.rounding import shown_metrics, shown_number, shown_share, shown_shares
from metrics.sliced_wasserstein import sliced_wasserstein

__all__ = [
    "FEATURE_SPACES",
    "METRICS",
    "FeatureSpace",
    "FeatureSums",
    "Metric",
    "frechet_distance",
    "half_split_floor",
    "measure",
    "measured_names",
    "selection_score",
    "shown_metrics",
    "shown_number",
    "shown_share",
    "shown_shares",
    "sliced_wasserstein",
    "split_in_halves",
]
