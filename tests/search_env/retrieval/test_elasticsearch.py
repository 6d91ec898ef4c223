"""What goes over the wire to a search server, and what comes of every way it can fail; the server here is a fake."""

import asyncio
import contextlib
import copy
import json
import logging
import multiprocessing
import pickle
import socket
import subprocess
import sys
import threading
import time
import traceback
from concurrent.futures import ProcessPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from search_env.errors import ConfigError, MissingDependencyError, RetrieverUnavailable
from search_env.retrieval import Retriever
from search_env.retrieval.elasticsearch import ElasticsearchSettings
from search_env.retrieval.elasticsearch_bodies import MAX_QUERY_CHARS
from search_env.retrieval.opensearch import OpenSearchSettings

pytest.importorskip("elasticsearch")
pytest.importorskip("opensearchpy")

ENGINES = {"elasticsearch": ElasticsearchSettings, "opensearch": OpenSearchSettings}
CANARY = "canary-8f3a71"
TEMPLATE = {
    "query": {
        "multi_match": {
            "query": "QUERY",
            "type": "best_fields",
            "fields": ["title^1.5", "text"],
            "tie_breaker": 0.3,
        }
    },
    "size": 3,
    "timeout": "5000ms",
    "sort": [{"_score": "desc"}, {"doc_id": "asc"}],
    "_source": ["title", "text"],
    "track_total_hits": False,
}
NASTY = [
    "*",
    "/.*/",
    "capital AND (",
    "_exists_:x",
    'a"}},"script":{"source":"1"',
    '\n{"index":"other"}\n{"query":{"match_all":{}}}\n',
    "\0",
    "\ud800 half a pair \udfff",
    "\u2028\r\n\x1b[31m",
    "x" * 100_000,
    "{{query}} ${query} %s \\u0000",
    "",
]


class FakeServer:
    """Answers every request by `reply`, a function of path and body that returns a status and a JSON value or bytes."""

    def __init__(self):
        self.requests = []
        self.reply = whole_reply
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1

            def do_GET(self):
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                fake.requests.append((self.path, dict(self.headers.items()), body))
                status, answer = fake.reply(self.path, body)
                data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("content-type", "text/html" if data[:1] == b"<" else "application/json")
                self.send_header("content-length", str(len(data)))
                self.send_header("x-elastic-product", "Elasticsearch")
                self.end_headers()
                self.wfile.write(data)

            do_POST = do_GET

            def log_message(self, *args):
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def stop(self):
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


def hit(number, score=1.5):
    source = {"title": f"Title {number}", "text": f"Text {number}."}
    return {"_index": "wiki-1", "_id": f"d{number}", "_score": None, "_source": source, "sort": [score, f"d{number}"]}


def whole(*hits):
    return {"status": 200, "timed_out": False, "_shards": {"total": 2, "failed": 0}, "hits": {"hits": list(hits)}}


def queries_of(body):
    return [json.loads(line)["query"]["multi_match"]["query"] for line in body.split(b"\n")[1::2]]


def whole_reply(path, body):
    """One document, named after the query's length, for each search; one index behind the alias."""
    if path.endswith("/wiki"):
        return 200, {"wiki-1": {"aliases": {}, "mappings": {}, "settings": {"index": {"uuid": "u1", "x": time.time()}}}}
    return 200, {"responses": [whole(hit(len(query))) for query in queries_of(body)]}


@pytest.fixture(scope="module")
def running_server():
    server = FakeServer()
    yield server
    server.stop()


@pytest.fixture
def server(running_server):
    running_server.reply = whole_reply
    running_server.requests.clear()
    return running_server


@pytest.fixture(params=ENGINES)
def settings(request, server):
    return ENGINES[request.param](url=server.url, index="wiki", timeout_s=5)


@pytest.fixture
def retriever(settings):
    with contextlib.closing(settings.build()) as retriever:
        yield retriever


@pytest.fixture(scope="module", params=ENGINES)
def long_lived(request, running_server):
    with contextlib.closing(ENGINES[request.param](url=running_server.url, index="wiki", timeout_s=5).build()) as made:
        yield made


ANY_TEXT = st.one_of(st.text(st.characters(exclude_categories=())), st.sampled_from(NASTY))


@given(texts=st.lists(ANY_TEXT, min_size=1, max_size=4))
def test_a_request_differs_from_the_template_in_the_query_strings_alone(running_server, long_lived, texts):
    running_server.reply = whole_reply
    running_server.requests.clear()
    assert len(long_lived.search(texts, 3)) == len(texts)
    ((path, _, body),) = running_server.requests
    assert path == "/wiki/_msearch?search_type=dfs_query_then_fetch"
    before, after = json.dumps(TEMPLATE, separators=(",", ":")).encode().split(b'"QUERY"')
    lines = body.split(b"\n")
    assert lines.pop() == b""
    assert set(lines[::2]) == {b"{}"}
    sent = []
    for line in lines[1::2]:
        assert line.startswith(before) and line.endswith(after)
        query = json.loads(line.decode())["query"]["multi_match"]["query"]
        assert isinstance(query, str) and len(query) <= MAX_QUERY_CHARS
        assert json.loads(line) == {
            **TEMPLATE,
            "query": {"multi_match": {**TEMPLATE["query"]["multi_match"], "query": query}},
        }
        sent.append(query)
    assert sent == list(dict.fromkeys(sendable(text) for text in texts))


def sendable(text):
    return "".join(" " if c == "\0" or "\ud800" <= c <= "\udfff" else c for c in text[:MAX_QUERY_CHARS])


def test_it_is_a_retriever(retriever):
    assert isinstance(retriever, Retriever)


def test_a_batch_is_one_request_whose_results_keep_the_order_of_the_queries(server, retriever):
    found = retriever.search(["ab", "abcd", "ab", "a"], 3)
    assert [[hit.document.id for hit in hits] for hits in found] == [["d2"], ["d4"], ["d2"], ["d1"]]
    assert found[0][0].document.title == "Title 2"
    assert found[0][0].document.text == "Text 2."
    assert found[0][0].score == 1.5
    assert [queries_of(body) for _, _, body in server.requests] == [["ab", "abcd", "a"]]


def test_requests_are_plain_json_which_servers_of_every_version_take(server, retriever):
    retriever.search(["x"], 1)
    assert retriever.fingerprint
    for _, headers, body in server.requests:
        told = {name.lower(): value for name, value in headers.items()}
        assert "compatible-with" not in str(told)
        assert not body or told["content-type"] in ("application/x-ndjson", "application/json")


def test_no_queries_send_nothing(server, retriever):
    assert retriever.search([], 3) == []
    assert not server.requests


@pytest.mark.parametrize("top_k", [0, -1, 10_001])
def test_top_k_out_of_range_is_refused_before_anything_is_sent(server, retriever, top_k):
    with pytest.raises(ConfigError, match=f"1 to 10,000 of them, got {top_k}"):
        retriever.search(["x"], top_k)
    assert not server.requests


ERROR = {"error": {"type": "some_exception", "reason": "some reason", "root_cause": [{"reason": "some reason"}]}}
LOST_SHARD = {"total": 2, "failed": 1, "failures": [{"reason": {"reason": "r"}}]}
FAILURES = {
    "400": (400, {**ERROR, "status": 400}, 400, "some_exception"),
    "401": (401, {**ERROR, "status": 401}, 401, "some_exception"),
    "429": (429, {**ERROR, "status": 429}, 429, "some_exception"),
    "503": (503, b"<html>no server here</html>", 503, "503"),
    "a proxy's page": (200, b"<html>log in</html>", None, ""),
    "broken JSON": (200, b'{"responses": [', None, ""),
    "another JSON": (200, {"took": 1}, 502, "not one of an msearch"),
    "too few replies": (200, {"responses": [whole()]}, 502, "1 replies to 2 searches"),
    "one search refused": (200, {"responses": [whole(), {**ERROR, "status": 429}]}, 429, "some_exception: some reason"),
    "a timeout in one": (200, {"responses": [whole(), {**whole(hit(1)), "timed_out": True}]}, 504, "timed out"),
    "a shard lost in one": (
        200,
        {"responses": [{**whole(hit(1)), "_shards": LOST_SHARD}, whole()]},
        503,
        r"1 of 2 shards failed \['r'\]",
    ),
    "a hit without text": (200, {"responses": [whole({**hit(1), "_source": {}}), whole()]}, 502, "msearch"),
    "a hit without score": (200, {"responses": [whole({**hit(1), "sort": [None, "d1"]}), whole()]}, 502, "msearch"),
}  # fmt: skip


@pytest.mark.parametrize("case", FAILURES)
def test_any_failure_is_unavailable_and_never_fewer_documents(server, retriever, case):
    status, answer, code, message = FAILURES[case]
    server.reply = lambda path, body: (status, answer)
    with pytest.raises(
        RetrieverUnavailable, match=f"index 'wiki' at {server.url} is not available: .*{message}"
    ) as caught:
        retriever.search(["one", "two"], 3)
    if code is not None:
        assert caught.value.__cause__.status_code == code
    assert len(server.requests) == 1, "what wraps a retriever retries, within its deadline"
    server.reply = whole_reply
    assert len(retriever.search(["one"], 3)) == 1


@pytest.mark.parametrize("engine", ENGINES)
def test_a_server_that_is_not_there_is_unavailable(engine):
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # Bound and not listening: refused.
        url = f"http://127.0.0.1:{held.getsockname()[1]}"
        retriever = ENGINES[engine](url=url, index="wiki").build()
        with pytest.raises(RetrieverUnavailable, match="refused"):
            retriever.search(["x"], 1)
        with pytest.raises(RetrieverUnavailable, match="refused"):
            _ = retriever.fingerprint
        with pytest.raises(RetrieverUnavailable):
            asyncio.run(search_and_close(retriever, ["x"]))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_server_that_does_not_answer_in_time_is_unavailable(engine, server):
    answer_now = threading.Event()

    def slow(path, body):
        answer_now.wait(10)
        return whole_reply(path, body)

    server.reply = slow
    with contextlib.closing(ENGINES[engine](url=server.url, index="wiki", timeout_s=0.1).build()) as retriever:
        with pytest.raises(RetrieverUnavailable, match=r"[Tt]imed out"):
            retriever.search(["x"], 1)
        answer_now.set()


async def search_and_close(retriever, *batches):
    try:
        return [await retriever.search_async(batch, 3) for batch in batches]
    finally:
        await retriever.close_async()


def test_coroutines_get_what_threads_get_in_any_number_of_event_loops(server, retriever):
    batches = [["ab", "abcd", "ab"], [], ["\ud800"]]
    expected = [retriever.search(batch, 3) for batch in batches]
    sent = [(path, body) for path, _, body in server.requests]
    server.requests.clear()
    for _ in range(2):
        assert asyncio.run(search_and_close(retriever, *batches)) == expected
    assert [(path, body) for path, _, body in server.requests] == sent * 2
    assert "compatible-with" not in str([headers for _, headers, _ in server.requests])


def test_a_failure_in_a_coroutine_is_unavailable(server, retriever):
    server.reply = lambda path, body: (200, {"responses": [{**ERROR, "status": 503}]})
    with pytest.raises(RetrieverUnavailable, match="some reason"):
        asyncio.run(search_and_close(retriever, ["x"]))


def test_the_fingerprint_names_the_index_behind_the_alias_and_is_asked_for_once(server, settings):
    def behind(uuid):
        server.reply = lambda path, body: (200, {"wiki-1": {"mappings": {}, "settings": {"index": {"uuid": uuid}}}})
        with contextlib.closing(settings.build()) as retriever:
            assert retriever.fingerprint == retriever.fingerprint
            return retriever.fingerprint

    first, other, again = behind("u1"), behind("u2"), behind("u1")
    assert first.startswith(f"{settings.engine}-") and len(first) == len(settings.engine) + 17
    assert first == again != other
    assert [path for path, _, _ in server.requests] == ["/wiki"] * 3


def test_a_fingerprint_that_the_server_does_not_tell_is_unavailable(server, retriever):
    server.reply = lambda path, body: (200, {"wiki-1": {}})
    with pytest.raises(RetrieverUnavailable, match="does not describe an index"):
        _ = retriever.fingerprint


def test_nothing_is_sent_before_the_first_search(server, settings):
    settings.build()
    assert not server.requests


def test_it_survives_pickling_and_a_deep_copy_while_its_client_is_open(server, retriever):
    expected = retriever.search(["ab"], 3)
    fingerprint = retriever.fingerprint
    server.requests.clear()
    with contextlib.closing(pickle.loads(pickle.dumps(retriever))) as twin:
        assert twin.fingerprint == fingerprint
        assert not server.requests
        assert twin.search(["ab"], 3) == expected
    assert copy.deepcopy({"retriever": retriever})["retriever"] is retriever


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_it_survives_a_fork_while_its_client_is_open(server, retriever):
    expected = retriever.search(["ab"], 3)
    with ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as pool:
        found = list(pool.map(retriever.search, [["ab"]] * 4, [3] * 4))
    assert found == [expected] * 4
    assert retriever.search(["ab"], 3) == expected


def test_threads_share_one_retriever(retriever):
    expected = retriever.search(["ab"], 3)
    found = []
    threads = [threading.Thread(target=lambda: found.append(retriever.search(["ab"], 3))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 4


LOGINS = {
    "an API key": {"api_key_env": "SEARCH_KEY"},
    "a password": {"username_env": "SEARCH_USER", "password_env": "SEARCH_KEY"},
}


@pytest.mark.parametrize("login", LOGINS)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_key_is_sent_and_told_nowhere_else(server, engine, login, monkeypatch, caplog):
    monkeypatch.setenv("SEARCH_KEY", CANARY)
    monkeypatch.setenv("SEARCH_USER", "reader")
    caplog.set_level(logging.DEBUG)
    settings = ENGINES[engine](url=server.url, index="wiki", **LOGINS[login])
    told = [repr(settings), settings.model_dump_json()]
    with contextlib.closing(settings.build()) as retriever:
        retriever.search(["x"], 1)
        told += [repr(retriever), repr(retriever.__dict__), pickle.dumps(retriever).decode("latin1")]
        server.reply = lambda path, body: (401, {**ERROR, "status": 401})
        with pytest.raises(RetrieverUnavailable) as caught:
            retriever.search(["x"], 1)
        told += ["".join(traceback.format_exception(caught.value)), caplog.text]
    (sent, _) = [headers for _, headers, _ in server.requests]
    authorization = {name.lower(): value for name, value in sent.items()}["authorization"]
    assert authorization in (f"ApiKey {CANARY}", "Basic cmVhZGVyOmNhbmFyeS04ZjNhNzE=")
    for text in told:
        assert CANARY not in text
        assert authorization not in text


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"url": f"http://reader:{CANARY}@127.0.0.1:9200"}, "must not hold a user or password"),
        ({"url": f"http://127.0.0.1:{CANARY}"}, "must be http://HOST:PORT"),
        ({"url": f"http://127.0.0.1:9200/?key={CANARY}"}, "must not hold a query"),
        ({"url": "127.0.0.1:9200"}, "must be http://HOST:PORT"),
        ({"url": "ftp://127.0.0.1:9200"}, "must be http://HOST:PORT"),
        ({"url": "https://:9200"}, "the host is missing"),
        ({"index": "wiki,other"}, "should match pattern"),
        ({"index": "*"}, "should match pattern"),
        ({"timeout_s": 0}, "greater than 0"),
        ({"username_env": "USER"}, "go together"),
        ({"api_key_env": "KEY", "username_env": "USER", "password_env": "PASSWORD"}, "not both"),
        ({"api_key": CANARY}, "Extra inputs are not permitted"),
    ],
)
def test_wrong_settings_are_refused_without_repeating_what_may_be_secret(wrong, message):
    with pytest.raises(ValidationError, match=message) as caught:
        ElasticsearchSettings(**{"url": "http://127.0.0.1:9200", "index": "wiki", **wrong})
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("http://localhost", "http://localhost:80"),
        ("https://search.example/", "https://search.example:443"),
        ("https://search.example:9243/prefix/", "https://search.example:9243/prefix"),
        ("http://[::1]:9200", "http://[::1]:9200"),
    ],
)
def test_a_url_is_completed(url, kept):
    settings = ElasticsearchSettings(url=url, index="wiki")
    assert settings.url == kept
    settings.connect().close()


@pytest.mark.parametrize("what", ["api_key", "ca_file"])
def test_a_variable_that_is_not_set_is_named(settings, what, monkeypatch):
    monkeypatch.delenv("NOT_SET", raising=False)
    retriever = settings.model_copy(update={f"{what}_env": "NOT_SET"}).build()
    with pytest.raises(ConfigError, match=f"{what}_env names the environment variable NOT_SET, which is not set"):
        retriever.search(["x"], 1)


def test_a_ca_file_that_is_not_there_is_refused(settings, monkeypatch, tmp_path):
    monkeypatch.setenv("CA", str(tmp_path / "ca.pem"))
    with pytest.raises(ConfigError, match="the path in CA is not a file"):
        settings.model_copy(update={"ca_file_env": "CA"}).build().search(["x"], 1)


@pytest.mark.parametrize(("engine", "package"), [("elasticsearch", "elasticsearch"), ("opensearch", "opensearchpy")])
def test_a_missing_package_is_named_with_the_command_that_installs_it(engine, package, server, monkeypatch):
    retriever = ENGINES[engine](url=server.url, index="wiki").build()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependencyError, match=rf"pip install 'search-env\[{engine}\]'"):
        retriever.search(["x"], 1)


def test_the_clients_are_not_imported_before_they_are_used():
    code = (
        "import sys, search_env.retrieval.elasticsearch_index, search_env.retrieval.opensearch as o;"
        "o.OpenSearchSettings(url='http://localhost', index='wiki').build();"
        "print({'elasticsearch', 'elastic_transport', 'opensearchpy', 'aiohttp'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
