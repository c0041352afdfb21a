"""What crosses the wire and how the server sees it: job envelope, exchanges, clocks, ids of units, centres."""
