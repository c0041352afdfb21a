"""The section "Convergence": when each centre's generator was as good as one of pooled data."""
