"""The section "Messages": what was sent, against what was expected."""
