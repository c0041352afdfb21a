"""The ground floor: what every room uses and that knows none of them. Standard library and numpy only."""
