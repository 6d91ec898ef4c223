"""What is kept is forgotten in time, shared by processes, and never in the way."""

import pickle
import time

import pytest

from search_env.errors import ConfigError
from search_env.retrieval.online.cache import ExpiringCache


def test_an_entry_is_forgotten_after_its_time(tmp_path, fakes):
    clock = fakes.Clock()
    cache = ExpiringCache(tmp_path / "new" / "cache.sqlite3", 60.0, now=clock)
    cache.put("a", "one")
    clock.time += 59
    assert cache.get("a") == "one"
    cache.put("b", "two")
    clock.time += 1
    assert cache.get("a") is None
    assert cache.get("b") == "two"
    cache.put("a", "three")
    assert cache.get("a") == "three"


def test_what_is_forgotten_leaves_the_file_when_it_is_opened(tmp_path, fakes):
    clock = fakes.Clock()
    path = tmp_path / "cache.sqlite3"
    ExpiringCache(path, 60.0, now=clock).put("a", "one")
    clock.time += 100
    ExpiringCache(path, 60.0, now=clock)
    assert ExpiringCache(path, 1_000.0, now=clock).get("a") is None


def test_a_cache_without_time_keeps_nothing(tmp_path, fakes):
    cache = ExpiringCache(tmp_path / "cache.sqlite3", 0.0, now=fakes.Clock())
    cache.put("a", "one")
    assert cache.get("a") is None


def test_a_copy_shares_the_file(tmp_path):
    cache = ExpiringCache(tmp_path / "cache.sqlite3", 60.0, now=time.time)
    pickle.loads(pickle.dumps(cache)).put("a", "œ\n\x00")
    assert cache.get("a") == "œ\n\x00"


def test_a_file_that_is_no_cache_is_refused(tmp_path):
    path = tmp_path / "cache.sqlite3"
    path.write_text("not a database, and long enough to be looked at as one " * 20)
    with pytest.raises(ConfigError, match="delete it"):
        ExpiringCache(path, 60.0)
    with pytest.raises(ConfigError, match=r"cannot be used"):
        ExpiringCache(path / "below", 60.0)


def test_a_file_that_fails_later_is_gone_without(tmp_path, caplog):
    path = tmp_path / "cache.sqlite3"
    cache = ExpiringCache(path, 60.0)
    path.write_text("not a database, and long enough to be looked at as one " * 20)
    cache.put("a", "one")
    assert cache.get("a") is None
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
