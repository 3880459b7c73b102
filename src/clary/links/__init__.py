"""The protocols between Clary's own processes: gateway↔control, control↔host, instance↔host.

One module a protocol, both directions in it. Every protocol has a version; a side that meets another says so
and closes. Nothing here knows AWS.
"""
