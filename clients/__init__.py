"""Flower ClientApp: one centre (hospital), its own policy and state, and what stays inside."""
