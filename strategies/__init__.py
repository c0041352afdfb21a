"""How knowledge moves between centres: one algorithm a file, both halves of it.

The server half (`share`) speaks to `federation.Centres`; the local half takes and returns arrays, state and
metrics and knows nothing of Flower.
"""
