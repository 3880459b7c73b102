"""The host of one machine: environments, zygotes, and the instances forked from them.

Imports nothing here: zygotes reach `clary.host.minder` with the standard library alone.
"""
