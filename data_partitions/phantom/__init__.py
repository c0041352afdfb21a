"""A computed breast: anatomy, views, scanners, and the source that draws patients."""
