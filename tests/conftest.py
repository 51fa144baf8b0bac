"""How all tests run."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# The same examples on every run, however slow the machine is at them.
settings.register_profile(
    "steady", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("steady")
