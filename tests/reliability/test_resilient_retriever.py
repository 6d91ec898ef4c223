import copy
import multiprocessing
import os
import pickle
import random
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from search_env.errors import ConfigError, RetrieverUnavailable
from search_env.retrieval import get_retriever
from search_env.retrieval.base import InMemoryRetriever, Retriever
from search_env.retrieval.resilience import ResilientRetriever, ResilientSettings, SystemClock
from search_env.types import Document

DOCUMENTS = [Document(id="d1", title="Norway", text="Its capital is Oslo."), Document(id="d2", title="Peru", text="-")]
BUSY, REFUSED = "503: try later", "400: no such field"


class FakeClock:
    """Time that passes only where somebody waits for it; a call that works longer than that hangs until `release`."""

    def __init__(self):
        self.time = 0.0
        self.sleeps = []
        self._older = set(threading.enumerate())
        self._work = None
        self._hanging = {}

    def now(self):
        return self.time

    def sleep(self, seconds):
        self.sleeps.append(seconds)
        self.time += seconds

    def wait(self, ready, seconds):
        while not ready(0.0005):
            if self._work is not None:
                (thread, needed, done), self._work = self._work, None
                if needed > seconds:
                    self._hanging[thread] = done
                    self.time += seconds
                    return False
                self.time += needed
                done.set()
            elif not self._somebody_works():
                if ready(0):
                    return True
                self.time += seconds
                return False
        return True

    def work(self, seconds):
        """Called by the service: takes so long."""
        done = threading.Event()
        self._work = threading.current_thread(), seconds, done
        done.wait()

    def release(self):
        for thread, done in self._hanging.items():
            done.set()
            thread.join()
        self._hanging.clear()

    def _somebody_works(self):
        return set(threading.enumerate()) - self._older - set(self._hanging) - {threading.current_thread()}


class Service(InMemoryRetriever):
    """Answers as planned, then well: each call takes its seconds, then fails with its error if it has one."""

    def __init__(self, clock, *plan):
        super().__init__(DOCUMENTS)
        self.clock, self.plan, self.calls = clock, list(plan), []

    def search(self, queries, top_k):
        self.calls.append(list(queries))
        seconds, error = self.plan.pop(0) if self.plan else (0, None)
        if seconds:
            self.clock.work(seconds)
        if error is not None:
            raise error
        return super().search(queries, top_k)


def busy(seconds=0):
    return seconds, RetrieverUnavailable(BUSY, transient=True)


def refused():
    return 0, RetrieverUnavailable(REFUSED)


def resilient(*plan, **settings):
    clock = FakeClock()
    service = Service(clock, *plan)
    return ResilientRetriever(service, ResilientSettings(of="service", **settings), clock), service, clock


@pytest.fixture
def answers():
    return InMemoryRetriever(DOCUMENTS).search(["capital", "Peru"], 2)


def test_a_search_that_fails_twice_for_a_moment_succeeds(answers):
    """Risk 10: 503 twice, then 200."""
    retriever, service, clock = resilient(busy(), busy())
    assert retriever.search(["capital", "Peru"], 2) == answers
    assert service.calls == [["capital", "Peru"]] * 3  # the whole batch each time
    assert len(clock.sleeps) == 2


def test_a_refused_search_is_not_tried_again():
    """Risk 10: 400."""
    retriever, service, clock = resilient(refused())
    with pytest.raises(RetrieverUnavailable, match=REFUSED):
        retriever.search(["x"], 1)
    assert len(service.calls) == 1 and clock.time == 0.0


def test_an_error_that_is_no_outage_is_passed_on_at_once():
    retriever, service, _ = resilient((0, ConfigError("top_k must be at least 1")))
    with pytest.raises(ConfigError, match="top_k"):
        retriever.search(["x"], 0)
    assert len(service.calls) == 1


def test_an_outage_that_outlasts_the_deadline_is_final_and_names_the_last_error():
    """Risk 10: an outage that lasts is `RetrieverUnavailable`."""
    retriever, service, clock = resilient(*[busy()] * 1000, deadline_s=30, breaker_failures=1000)
    with pytest.raises(RetrieverUnavailable, match=r"its deadline is 30 s: attempt \d+ failed: 503: try later") as info:
        retriever.search(["x"], 1)
    assert not info.value.transient  # an outer wrapper must not begin anew
    assert info.value.__cause__.transient
    assert len(service.calls) > 3 and clock.time <= 30


def test_pauses_are_drawn_at_random_below_a_bound_that_doubles():
    bounds = [0.5, 1.0, 2.0, 4.0, 5.0, 5.0, 5.0]
    drawn = []
    for _ in range(20):
        retriever, _, clock = resilient(*[busy()] * 7, deadline_s=1000, breaker_failures=100, max_backoff_s=5)
        retriever.search(["x"], 1)
        assert all(0 <= pause <= bound for pause, bound in zip(clock.sleeps, bounds, strict=True))
        drawn.append(tuple(clock.sleeps))
    assert len(set(drawn)) == 20
    assert max(pauses[-1] for pauses in drawn) > 2.5  # the bound is used


@given(
    plan=st.lists(st.tuples(st.sampled_from([0, 0, 0.2, 3, 40]), st.booleans()), max_size=12),
    deadline_s=st.sampled_from([0.1, 1, 10, 60]),
    breaker_failures=st.integers(1, 4),
    breaker_reset_s=st.sampled_from([0.3, 5, 100]),
)
def test_no_search_takes_longer_than_its_deadline(plan, **settings):
    """Risk 10: retries within a deadline."""
    calls = [(seconds, RetrieverUnavailable(BUSY, transient=True) if fails else None) for seconds, fails in plan]
    retriever, _, clock = resilient(*calls, deadline_s=settings.pop("deadline_s"), **settings)
    for _ in range(3):
        begun = clock.time
        try:
            assert len(retriever.search(["capital"], 1)) == 1
        except RetrieverUnavailable as error:
            assert not error.transient
        assert clock.time - begun <= retriever._settings.deadline_s + 1e-9
    clock.release()


def test_a_call_that_hangs_ends_at_the_deadline_and_keeps_its_place(answers):
    retriever, service, clock = resilient((1000, None), deadline_s=20, max_concurrency=1)
    with pytest.raises(RetrieverUnavailable, match="its deadline is 20 s: the retriever does not answer") as info:
        retriever.search(["x"], 1)
    assert clock.time == 20 and not info.value.transient
    with pytest.raises(RetrieverUnavailable, match=r"all 1 places for a call \(max_concurrency\) are taken"):
        retriever.search(["x"], 1)
    assert clock.time == 40 and len(service.calls) == 1
    clock.release()
    assert retriever.search(["capital", "Peru"], 2) == answers


def test_a_real_clock_bounds_a_call_that_hangs():
    class Hanging(InMemoryRetriever):
        over = threading.Event()

        def search(self, queries, top_k):
            self.over.wait()
            return super().search(queries, top_k)

    inner = Hanging(DOCUMENTS)
    with pytest.raises(RetrieverUnavailable, match="does not answer"):
        ResilientRetriever(inner, ResilientSettings(of="x", deadline_s=0.02)).search(["x"], 1)
    inner.over.set()


def test_after_some_failures_the_breaker_opens_and_no_call_reaches_the_service():
    """Risk 10: the breaker opens."""
    retriever, service, clock = resilient(*[busy()] * 9, deadline_s=30, breaker_failures=3, breaker_reset_s=100)
    with pytest.raises(RetrieverUnavailable, match=r"attempts or more failed, so the service is left alone"):
        retriever.search(["x"], 1)
    assert len(service.calls) == 3
    begun = clock.time
    with pytest.raises(RetrieverUnavailable, match=r"the last 3 attempts or more failed.* left alone for another \d"):
        retriever.search(["x"], 1)
    assert len(service.calls) == 3 and clock.time == begun  # at once


def test_a_probe_that_succeeds_closes_the_breaker():
    """Risk 10: half open, then closed."""
    retriever, service, clock = resilient(*[busy()] * 3, deadline_s=30, breaker_failures=3, breaker_reset_s=100)
    with pytest.raises(RetrieverUnavailable):
        retriever.search(["x"], 1)
    clock.sleep(100)
    for calls in (4, 5, 6):
        retriever.search(["x"], 1)
        assert len(service.calls) == calls


def test_a_probe_that_fails_keeps_the_breaker_open_for_as_long_again():
    retriever, service, clock = resilient(busy(), busy(), deadline_s=30, breaker_failures=1, breaker_reset_s=100)
    for clock.time, calls in ((0.0, 1), (50.0, 1), (100.0, 2), (150.0, 2)):
        with pytest.raises(RetrieverUnavailable, match="left alone"):
            retriever.search(["x"], 1)
        assert len(service.calls) == calls
    clock.time = 200.0
    assert retriever.search(["x"], 1) == [()]


def test_a_refusal_shows_that_the_service_is_there():
    plan = [busy(), refused(), busy(), refused(), busy()]
    retriever, service, _ = resilient(*plan, breaker_failures=2, breaker_reset_s=1000)
    for _ in range(2):
        with pytest.raises(RetrieverUnavailable, match=REFUSED):
            retriever.search(["x"], 1)
    assert retriever.search(["x"], 1) == [()]
    assert len(service.calls) == 6


def test_a_service_that_comes_back_within_the_deadline_costs_a_pause_and_no_search(answers):
    for outage in (1, 5, 20, 45):
        clock = FakeClock()

        class Restarting(Service):
            def search(self, queries, top_k):
                if self.clock.time < outage:  # noqa: B023
                    raise RetrieverUnavailable("connection refused", transient=True)
                return super().search(queries, top_k)

        retriever = ResilientRetriever(Restarting(clock), ResilientSettings(of="x"), clock)
        assert retriever.search(["capital", "Peru"], 2) == answers
        assert outage <= clock.time <= 60


def test_searches_that_wait_for_a_probe_go_on_as_soon_as_it_succeeds(answers):
    class Shifted(SystemClock):
        offset = 0.0

        def now(self):
            return super().now() + self.offset

    clock = Shifted()
    service = Service(clock, busy())
    settings = ResilientSettings(of="x", deadline_s=3000, breaker_failures=1, breaker_reset_s=1000, backoff_s=1e-9)
    retriever = ResilientRetriever(service, settings, clock)
    found = []
    waiting = threading.Thread(target=lambda: found.append(retriever.search(["capital", "Peru"], 2)))
    waiting.start()
    while retriever._guards.breaker.closed.is_set():
        pass
    clock.offset = 1000
    assert retriever.search(["capital"], 2) == answers[:1]
    waiting.join(timeout=60)
    assert found == [answers]


def test_no_more_calls_than_allowed_are_made_at_the_same_time(answers):
    class Crowded(InMemoryRetriever):
        def __init__(self):
            super().__init__(DOCUMENTS)
            self.now = self.most = 0
            self.lock, self.pair = threading.Lock(), threading.Barrier(2)

        def search(self, queries, top_k):
            with self.lock:
                self.now += 1
                self.most = max(self.most, self.now)
            self.pair.wait(timeout=60)
            with self.lock:
                self.now -= 1
            return super().search(queries, top_k)

    inner = Crowded()
    retriever = ResilientRetriever(inner, ResilientSettings(of="x", max_concurrency=2))
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(retriever.search(["capital", "Peru"], 2))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert found == [answers] * 8 and inner.most == 2


def test_it_is_a_retriever_with_the_fingerprint_of_the_one_it_wraps():
    retriever, _, _ = resilient()
    assert isinstance(retriever, Retriever) and retriever.fingerprint == InMemoryRetriever(DOCUMENTS).fingerprint
    assert copy.deepcopy(retriever) is retriever


def test_a_pickled_copy_searches_with_a_breaker_of_its_own(answers):
    settings = ResilientSettings(of="x", deadline_s=60, breaker_failures=1, breaker_reset_s=1000)
    retriever = ResilientRetriever(InMemoryRetriever(DOCUMENTS), settings)
    retriever._guards.breaker.failed(retriever._clock.now())
    with pytest.raises(RetrieverUnavailable, match="left alone"):
        retriever.search(["capital", "Peru"], 2)
    assert pickle.loads(pickle.dumps(retriever)).search(["capital", "Peru"], 2) == answers


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_does_not_inherit_calls_in_flight(answers):
    over = threading.Event()

    class Once(InMemoryRetriever):
        hangs = True

        def search(self, queries, top_k):
            if self.hangs:
                over.wait()
            return super().search(queries, top_k)

    inner = Once(DOCUMENTS)
    retriever = ResilientRetriever(inner, ResilientSettings(of="x", deadline_s=0.02, max_concurrency=1))
    with pytest.raises(RetrieverUnavailable):
        retriever.search(["x"], 1)
    inner.hangs = False
    retriever._settings = retriever._settings.model_copy(update={"deadline_s": 60.0})
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)
    child = context.Process(target=lambda: sending.send(retriever.search(["capital", "Peru"], 2)))
    child.start()
    assert receiving.poll(60) and receiving.recv() == answers
    child.join()
    over.set()


def test_an_error_keeps_what_it_says_about_another_try():
    for transient in (False, True):
        error = pickle.loads(pickle.dumps(RetrieverUnavailable("down", transient=transient)))
        assert (error.transient, str(error)) == (transient, "down")
    assert not RetrieverUnavailable("down").transient


def test_the_global_random_state_is_left_alone():
    """Risk 13: pauses are drawn without touching the global generators."""
    state = random.getstate()
    retriever, _, _ = resilient(busy(), busy())
    retriever.search(["x"], 1)
    assert random.getstate() == state


def test_settings_say_what_is_wrong_and_build_around_any_retriever():
    for wrong in ({"deadline_s": 0}, {"retries": 3}, {"max_concurrency": 0}):
        with pytest.raises(ValidationError, match=next(iter(wrong))):
            ResilientSettings(of="bm25", **wrong)
    retriever = get_retriever({"name": "resilient", "deadline_s": 5, "of": {"name": "bm25"}}, DOCUMENTS)
    assert retriever.search(["Peru"], 1)[0][0].document.id == "d2"
    assert retriever.fingerprint == get_retriever("bm25", DOCUMENTS).fingerprint
