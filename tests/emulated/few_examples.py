"""A pytest plugin for the emulated Python: fewer examples of each property, and no deadline for any of them."""

from hypothesis import settings

settings.register_profile("emulated", max_examples=4, deadline=None)
settings.load_profile("emulated")
