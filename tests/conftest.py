"""Settings of all tests.

Hypothesis looks for wrong behaviour, not for slow examples on a busy machine. Indexes are
cached for the session, away from the user's own cache.
"""

import pytest
from hypothesis import settings

settings.register_profile("search-env", deadline=None)
settings.load_profile("search-env")


@pytest.fixture(scope="session", autouse=True)
def cache_of_the_session(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEARCH_ENV_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
