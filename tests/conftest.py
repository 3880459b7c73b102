"""What holds for all tests: no property fails for being slow, and where `CI` is set each is tried on the same examples
in every run, so that a run that fails there is about the change and not about the draw. People's runs draw anew."""

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "suite",
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("suite")
