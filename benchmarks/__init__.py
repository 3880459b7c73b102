"""Measurements: `make bench` runs them all and writes docs/reference/performance.md.

Every figure stands beside a floor or a peer measured in the same run, because absolute figures move from machine
to machine. Nothing here asserts: a bar that is missed is written down as missed.
"""
