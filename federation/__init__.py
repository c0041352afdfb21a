"""The wire: job envelope, the centres as the server sees them, engines, starting and stopping Flower.

Knows nothing of scenarios, strategies or models: a job is a kind, a JSON body and arrays.
"""
