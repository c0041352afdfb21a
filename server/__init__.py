"""Flower ServerApp: the study, phase by phase, and its checkpoints."""
