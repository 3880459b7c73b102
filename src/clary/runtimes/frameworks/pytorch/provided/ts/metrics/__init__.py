"""Metrics that handlers write: lines of the log."""
