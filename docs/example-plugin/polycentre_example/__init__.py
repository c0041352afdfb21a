"""One of each kind of plug-in. polycentre imports each module when a scenario names what is in it, and not before."""
