"""Settings of all tests.

Hypothesis looks for wrong behaviour, not for slow examples on a busy machine. Indexes are
cached for the session, away from the user's own cache.
"""

import gc
import warnings

import pytest
from hypothesis import settings

settings.register_profile("search-env", deadline=None)
settings.load_profile("search-env")


@pytest.fixture(scope="session", autouse=True)
def cache_of_the_session(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEARCH_ENV_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def ray_cluster(request):
    """Ray on this machine, for the tests of one file; with 6 CPUs, or as many as its RAY_CPUS says.

    Its RAY_GPUS are declared to Ray only: whoever is given one computes on what torch finds.
    """
    import ray

    cpus, gpus = getattr(request.module, "RAY_CPUS", 6), getattr(request.module, "RAY_GPUS", None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(
            num_cpus=cpus, num_gpus=gpus, include_dashboard=False, log_to_driver=False, object_store_memory=200 << 20
        )
        yield
    with warnings.catch_warnings():  # Ray does not wait for the processes that it stops
        warnings.simplefilter("ignore", ResourceWarning)
        ray.shutdown()
        gc.collect()
