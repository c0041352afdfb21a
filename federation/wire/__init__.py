"""What crosses the wire, and how the server sees it: jobs and replies, centres, exchanges, clocks, ids of units."""
