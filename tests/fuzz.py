"""A pytest plugin for `make fuzz`: so many examples of each property that a minute goes by."""

from hypothesis import HealthCheck, settings

settings.register_profile("fuzz", max_examples=12000, deadline=None, suppress_health_check=list(HealthCheck))
settings.load_profile("fuzz")
