"""Settings of all tests: Hypothesis looks for wrong behaviour, not for slow examples on a busy machine."""

from hypothesis import settings

settings.register_profile("search-env", deadline=None)
settings.load_profile("search-env")
