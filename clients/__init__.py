"""Flower ClientApp: one centre (hospital), its provider and receiver duties, and what stays inside."""
