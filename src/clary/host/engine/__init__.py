"""Images of users' own: run by a container engine (Docker, Podman), looked after by the host like any other instance.

`containers` is what the host knows of it. `runner` is an instance's process: beside each container stands one, forked
and minded as a model server is, so that logs, ends, restarts of the host and stops work alike. Imports nothing here:
a runner pays for it.
"""
