"""The command line: scenarios, validate, run, report, doctor."""
