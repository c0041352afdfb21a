"""The run record, and what is made from it: tables, figures and the HTML report.

Nothing here computes a study; everything here can be rebuilt from a run folder alone.
"""
