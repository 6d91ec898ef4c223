"""The client takes a reply whole or fails, tells what may pass, and keeps its key to itself."""

import copy
import gc
import itertools
import json
import pickle
import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from search_env.errors import ConfigError, MissingDependencyError, RetrieverUnavailable
from search_env.retrieval import Retriever, http
from search_env.retrieval.http import HTTPRetriever, HTTPSettings

KEY = "canary-4711"


class Server:
    """A transport that answers as a Search-R1 server, or as told, and keeps the requests."""

    def __init__(self, answer=None):
        self.answer = answer
        self.requests = []

    def __call__(self, request):
        self.requests.append(request)
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer is not None:
            return self.answer
        queries = json.loads(request.content)["queries"]
        found = [[{"document": {"id": query, "contents": f'"T"\n{query}'}, "score": 1.0}] for query in queries]
        return httpx.Response(200, json={"result": found})

    @property
    def bodies(self):
        return [json.loads(request.content) for request in self.requests]


def made(server, **settings):
    return HTTPRetriever(HTTPSettings(**settings), transport=httpx.MockTransport(server))


def test_it_is_a_retriever_that_the_settings_build():
    retriever = HTTPSettings(url="http://127.0.0.1:9").build(())
    assert isinstance(retriever, Retriever)
    assert retriever.settings.url == "http://127.0.0.1:9/retrieve"


def test_a_batch_is_one_request_and_each_different_query_is_asked_once():
    server = Server()
    found = made(server).search(["b", "a", "b"], 3)
    assert [hits[0].document.id for hits in found] == ["b", "a", "b"]
    assert server.bodies == [{"queries": ["b", "a"], "topk": 3, "return_scores": True}]
    assert server.requests[0].headers["content-type"] == "application/json"
    assert "authorization" not in server.requests[0].headers


def test_a_large_batch_is_sent_in_parts_and_an_empty_one_not_at_all():
    server = Server()
    found = made(server, batch_size=2).search(list("abcde"), 1)
    assert [hits[0].document.id for hits in found] == list("abcde")
    assert [body["queries"] for body in server.bodies] == [["a", "b"], ["c", "d"], ["e"]]
    assert made(server).search([], 1) == []
    assert len(server.requests) == 3


def test_a_query_is_cut_and_made_encodable_so_that_no_text_is_refused():
    server = Server()
    made(server, max_query_chars=3).search(["ab\ud800de", "\x00"], 1)
    assert server.bodies[0]["queries"] == ["ab?", "\x00"]


def test_top_k_must_be_positive():
    with pytest.raises(ConfigError, match="at least 1, got 0"):
        made(Server()).search(["a"], 0)


@pytest.mark.parametrize(
    "error",
    [
        httpx.ConnectError("refused"),
        httpx.ConnectTimeout("slow"),
        httpx.ReadTimeout(""),
        httpx.ReadError("reset"),
        httpx.RemoteProtocolError("left"),
    ],
)
def test_a_server_that_cannot_be_asked_may_be_there_in_a_moment(error):
    with pytest.raises(RetrieverUnavailable, match=type(error).__name__) as raised:
        made(Server(error)).search(["a"], 1)
    assert raised.value.transient
    assert raised.value.__cause__ is error
    assert "http://127.0.0.1:8000/retrieve" in str(raised.value)


@pytest.mark.parametrize(
    ("status", "transient"),
    [(429, True), (500, True), (502, True), (503, True), (504, True), (301, False), (401, False), (404, False),
     (413, False), (422, False), (204, False)],
)  # fmt: skip
def test_a_status_other_than_200_is_unavailable_and_tells_whether_it_may_pass(status, transient):
    answer = httpx.Response(status, text="no\x1b[31m" + "x" * 1000, headers={"Location": "http://127.0.0.1:8000/other"})
    server = Server(answer)
    with pytest.raises(RetrieverUnavailable, match=rf"status {status}: 'no\\x1b") as raised:
        made(server).search(["a"], 1)
    assert raised.value.transient is transient
    assert len(str(raised.value)) < 400
    assert len(server.requests) == 1  # No retry, no redirect followed.


@pytest.mark.parametrize(
    ("content", "problem"),
    [(b"{}", "result: Field required"), (b"<html>", "Invalid JSON"), (b'{"result": []}', "0 lists for 1 queries")],
)
def test_a_malformed_reply_is_unavailable_and_never_an_empty_result(content, problem):
    with pytest.raises(RetrieverUnavailable, match=problem) as raised:
        made(Server(httpx.Response(200, content=content))).search(["a"], 1)
    assert not raised.value.transient


def test_a_reply_that_cannot_be_decoded_is_unavailable():
    def broken():
        yield b"not gzip"

    answer = httpx.Response(200, headers={"Content-Encoding": "gzip"}, content=broken())
    with pytest.raises(RetrieverUnavailable, match="cannot be decoded") as raised:
        made(Server(answer)).search(["a"], 1)
    assert not raised.value.transient


def test_a_reply_that_never_ends_is_given_up(monkeypatch):
    monkeypatch.setattr(http, "_MAX_REPLY_BYTES", 1000)
    with pytest.raises(RetrieverUnavailable, match="larger than 1,000 bytes") as raised:
        made(Server(httpx.Response(200, content=itertools.repeat(b"x" * 100)))).search(["a"], 1)
    assert not raised.value.transient


def test_a_reply_that_drips_is_given_up_at_the_timeout(monkeypatch):
    clock = itertools.count(0, 10)
    monkeypatch.setattr(http.time, "monotonic", lambda: next(clock))
    with pytest.raises(RetrieverUnavailable, match="not complete after 25 s") as raised:
        made(Server(httpx.Response(200, content=itertools.repeat(b"x"))), timeout=25).search(["a"], 1)
    assert raised.value.transient


def test_the_fingerprint_names_the_corpus_or_else_the_address():
    assert HTTPSettings().build().fingerprint == HTTPSettings(timeout=5).build().fingerprint
    assert HTTPSettings(url="http://other").build().fingerprint != HTTPSettings().build().fingerprint
    wiki = HTTPSettings(corpus="wiki-18").build().fingerprint
    assert wiki == HTTPSettings(corpus="wiki-18", url="http://other").build().fingerprint
    assert wiki.startswith("http-")
    assert len(wiki) == len("http-") + 16


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("127.0.0.1:8000", "must be an address like"),
        ("ftp://host/retrieve", "must be an address like"),
        ("http:///retrieve", "must be an address like"),
        (f"http://user:{KEY}@host/retrieve", "api_key_env"),
        (f"http://host/retrieve?key={KEY}", "api_key_env"),
    ],
)
def test_an_address_that_is_none_or_holds_a_secret_is_refused_without_showing_it(url, problem):
    with pytest.raises(ValueError, match=problem) as raised:
        HTTPSettings(url=url)
    assert KEY not in str(raised.value)


def test_settings_refuse_what_they_do_not_know():
    with pytest.raises(ValueError, match="top_k"):
        HTTPSettings(top_k=3)


def test_the_key_is_sent_and_shown_nowhere(monkeypatch):
    monkeypatch.setenv("GATEWAY_KEY", KEY)
    server = Server(httpx.Response(401, text="wrong key"))
    retriever = made(server, api_key_env="GATEWAY_KEY")
    with pytest.raises(RetrieverUnavailable) as raised:
        retriever.search(["a"], 1)
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"
    retriever._transport = None
    shown = "".join(traceback.format_exception(raised.value)) + repr(retriever) + repr(retriever.settings)
    assert KEY not in shown + retriever.settings.model_dump_json() + retriever.fingerprint
    assert KEY.encode() not in pickle.dumps(retriever)


@pytest.mark.parametrize("value", [None, " ", f"{KEY}\nX: y", f"{KEY}é"])
def test_a_key_that_is_missing_or_fits_no_header_is_named_by_its_variable(monkeypatch, value):
    if value is not None:
        monkeypatch.setenv("GATEWAY_KEY", value)
    with pytest.raises(ConfigError, match="GATEWAY_KEY") as raised:
        made(Server(), api_key_env="GATEWAY_KEY").search(["a"], 1)
    assert KEY not in str(raised.value)


def test_a_deep_copy_is_the_retriever_itself():
    retriever = HTTPSettings().build()
    assert copy.deepcopy({"retriever": retriever})["retriever"] is retriever


def test_connections_are_opened_by_the_first_search_and_closed_with_the_retriever():
    retriever = made(Server())
    assert retriever._opened is None
    retriever.search(["a"], 1)
    first = retriever._opened[1]
    retriever.search(["b"], 1)
    assert retriever._opened[1] is first
    retriever.close()
    assert first.is_closed
    retriever.search(["c"], 1)
    second = retriever._opened[1]
    del retriever
    gc.collect()
    assert second.is_closed


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    assert http._is_here("127.0.0.1") and http._is_here("::1") and http._is_here("localhost")
    assert not http._is_here("10.0.0.7") and not http._is_here("node7.lan")
    retriever = HTTPSettings().build()
    assert retriever._client()._mounts == {}
    retriever.close()


def test_without_httpx_the_command_that_installs_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'search-env\[http\]'"):
        HTTPSettings().build().search(["a"], 1)


def test_each_thread_keeps_its_connection_however_many_search():
    """Beyond a limit of the pool, threads would close what others were just given."""
    opened, together = [], threading.Barrier(30, timeout=30)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self):
            opened.append(self.client_address)
            super().setup()

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            together.wait()
            body = b'{"result": [[]]}'
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 256

    with Server(("127.0.0.1", 0), Handler) as server, ThreadPoolExecutor(30) as threads:
        threading.Thread(target=server.serve_forever).start()
        client = HTTPSettings(url=f"http://127.0.0.1:{server.server_address[1]}").build()
        counts = []
        for _ in range(4):
            searches = [threads.submit(client.search, ["oslo"], 1) for _ in range(30)]
            assert [search.result() for search in searches] == [[()]] * 30
            counts.append(len(opened))
        client.close()
        server.shutdown()
    assert counts[1] == counts[2] == counts[3] >= 30
