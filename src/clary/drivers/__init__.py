"""Where instances run: one module a driver, listed in `drivers/load.py`."""
