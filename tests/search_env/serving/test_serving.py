"""A server answers as Search-R1's does, within its limits, and a failure is never an empty result."""

import json
import re
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import islice

import httpx
import pytest

from search_env.errors import ConfigError, MissingDependencyError, RetrieverUnavailable
from search_env.retrieval import InMemoryRetriever
from search_env.serving import ServerSettings, allowed_hosts, listen, make_server
from search_env.types import Document

OSLO = Document(id="1", title="Oslo", text="Capital of Norway.\nFounded in 1040.")
LIMA = Document(id="2", title='"Lima"', text="Capital of “Peru”.")


class Watched(InMemoryRetriever):
    """Counts its searches; holds them while ``gate`` is closed; fails with ``error``."""

    def __init__(self, documents=(OSLO, LIMA)):
        super().__init__(documents)
        self.gate = threading.Event()
        self.reset()

    def reset(self):
        self.batches, self.error = [], None
        self.gate.set()
        return self

    def search(self, queries, top_k):
        self.batches.append(list(queries))
        assert self.gate.wait(30)
        if self.error is not None:
            raise self.error
        return super().search(queries, top_k)


@pytest.fixture(scope="module")
def shared(serving):
    """A server with low limits, and its retriever."""
    retriever = Watched()
    with serving(retriever, max_queries=4, max_query_chars=100, max_top_k=5, max_body_bytes=2000) as address:
        yield address, retriever


@pytest.fixture
def address(shared):
    return shared[0]


@pytest.fixture
def retriever(shared):
    return shared[1].reset()


def post(address, path, **kwargs):
    return httpx.post(f"{address}{path}", timeout=30, verify=False, **kwargs)  # No certificates to load.


def test_a_request_of_search_r1_verl_or_skyrl_gets_the_documented_bytes(address):
    payload = {"queries": ["Norway's capital", "nothing"], "topk": 1, "return_scores": True}
    response = post(address, "/retrieve", json=payload)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.content == (
        rb'{"result":[[{"document":{"id":"1","title":"Oslo","text":"Capital of Norway.\nFounded in 1040.",'
        rb'"contents":"\"Oslo\"\nCapital of Norway.\nFounded in 1040."},"score":2.0}],[]]}'
    )


def test_a_request_of_slime_gets_the_documents_without_scores(address):
    response = post(address, "/retrieve", json={"queries": ["peru"], "topk": 3, "return_scores": False})
    assert response.content == (
        rb'{"result":[[{"id":"2","title":"\"Lima\"","text":"Capital of \u201cPeru\u201d.",'
        rb'"contents":"\"\"Lima\"\"\nCapital of \u201cPeru\u201d."}]]}'
    )


@pytest.mark.parametrize("topk", [{}, {"topk": None}, {"topk": 0}])
def test_without_topk_or_scores_the_defaults_are_those_of_search_r1(serving, topk):
    documents = [Document(id=f"{n}", title="Page", text="page") for n in range(9)]
    with serving(InMemoryRetriever(documents), default_top_k=4) as address:
        (found,) = post(address, "/retrieve", json={"queries": ["page"], "unknown": 1, **topk}).json()["result"]
    assert [document["id"] for document in found] == ["0", "1", "2", "3"]


def test_our_own_api_returns_plain_hits(address):
    response = post(address, "/v1/search", json={"queries": ["norway", ""], "top_k": 2})
    assert response.json() == {"results": [[{"id": "1", "title": "Oslo", "text": OSLO.text, "score": 1.0}], []]}


def test_no_queries_are_no_search(address, retriever):
    assert post(address, "/retrieve", json={"queries": []}).json() == {"result": []}
    assert post(address, "/v1/search", json={"queries": []}).json() == {"results": []}
    assert retriever.batches == []


def test_info_tells_fingerprint_and_limits(address, retriever):
    info = httpx.get(f"{address}/v1/info").json()
    assert info["fingerprint"] == retriever.fingerprint
    assert info["settings"]["max_queries"] == 4


def test_health_and_metrics(serving):
    retriever = Watched()
    with serving(retriever) as address:
        assert httpx.get(f"{address}/healthz").json() == {"status": "ok"}
        post(address, "/retrieve", json={"queries": ["a", "b"]})
        post(address, "/retrieve", json={"queries": 1})
        retriever.error = RetrieverUnavailable("gone")
        post(address, "/v1/search", json={"queries": ["a"]})
        response = httpx.get(f"{address}/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=")
    counted = dict(line.rsplit(" ", 1) for line in response.text.splitlines() if not line.startswith("#"))
    assert counted['search_env_requests_total{path="/retrieve",status="200"}'] == "1.0"
    assert counted['search_env_requests_total{path="/retrieve",status="422"}'] == "1.0"
    assert counted['search_env_requests_total{path="/v1/search",status="503"}'] == "1.0"
    assert counted["search_env_batch_queries_sum"] == "3.0"
    assert counted["search_env_search_seconds_count"] == "2.0"
    assert counted["search_env_search_failures_total"] == "1.0"
    assert counted["search_env_waiting_queries"] == "0.0"


JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("request_", "status", "detail"),
    [
        ({"json": {"queries": ["a"] * 5}}, 413, "queries holds 5 texts, at most 4 are allowed; send them in parts"),
        ({"json": {"queries": ["a", "b" * 101]}}, 413, "queries.1 has 101 characters, at most 100 are allowed; cut it"),
        ({"json": {"queries": ["b" * 3000]}}, 413, "the body is larger than 2000 bytes; send the queries in parts"),
        ({"content": (b" " * 1000 for _ in range(3)), "headers": JSON}, 413, "the body is larger than 2000 bytes"),
        ({"json": {"queries": ["a"], "top": 6}}, 422, "6 documents for each query are asked for, 1 to 5 are allowed"),
        ({"json": {"queries": ["a"], "top": -1}}, 422, "-1 documents for each query"),
        ({"json": {"queries": "a"}}, 422, "queries: Input should be a valid list"),
        ({"json": {"queries": ["a", None]}}, 422, "queries.1: Input should be a valid string"),
        ({"json": {"query": "a"}}, 422, "queries: Field required"),
        ({"json": ["a"]}, 422, "Input should be a valid dictionary"),
        ({"content": b"{", "headers": JSON}, 422, "the body is not JSON: "),
        ({"content": b"\xff", "headers": JSON}, 422, "the body is not JSON: "),
        ({"content": b"[" * 2000, "headers": JSON}, 422, "the body is not JSON: "),
        ({"content": b'{"queries": ["a"]}'}, 415, "send it with Content-Type: application/json, not ''"),
        ({"data": {"queries": "a"}}, 415, "not 'application/x-www-form-urlencoded'"),
    ],
)  # fmt: skip
@pytest.mark.parametrize(("path", "top"), [("/retrieve", "topk"), ("/v1/search", "top_k")])
def test_what_is_malformed_or_beyond_a_limit_is_refused_in_json(
    address, retriever, path, top, request_, status, detail
):
    if isinstance(request_.get("json"), dict):
        request_ = {"json": {top if key == "top" else key: value for key, value in request_["json"].items()}}
    elif "content" in request_ and not isinstance(request_["content"], bytes):
        request_ = {**request_, "content": (b" " * 1000 for _ in range(3))}  # A generator serves once.
    response = post(address, path, **request_)
    assert response.status_code == status
    assert detail in response.json()["detail"]
    assert retriever.batches == []


def test_our_own_api_refuses_keys_it_does_not_know(address):
    response = post(address, "/v1/search", json={"queries": ["a"], "topk": 3})
    assert (response.status_code, response.json()) == (422, {"detail": "topk: Extra inputs are not permitted"})


def test_other_addresses_and_methods_are_refused_in_json(address):
    assert httpx.get(f"{address}/nowhere").json() == {"detail": "Not Found"}
    assert httpx.get(f"{address}/retrieve").status_code == 405


def test_half_a_surrogate_pair_is_searched_like_any_text(address, retriever):
    response = post(address, "/retrieve", content=rb'{"queries": ["norway \ud800"]}', headers=JSON)
    assert [document["id"] for document in response.json()["result"][0]] == ["1"]
    assert retriever.batches == [["norway ?"]]


def test_concurrent_requests_are_merged(serving, retriever):
    with serving(retriever, batch_wait_ms=300) as address, ThreadPoolExecutor(16) as pool:
        queries = [["norway"], ["peru"]] * 8
        responses = list(pool.map(lambda query: post(address, "/v1/search", json={"queries": query}), queries))
    found = [response.json()["results"][0][0]["title"] for response in responses]
    assert found == ["Oslo", '"Lima"'] * 8
    assert len(retriever.batches) < 8
    assert sorted(query for batch in retriever.batches for query in batch) == ["norway"] * 8 + ["peru"] * 8


def test_a_full_queue_is_503_with_retry_after_and_empties_again(serving):
    retriever, ask = Watched(), {"json": {"queries": ["norway"]}}
    retriever.gate.clear()
    with (
        serving(retriever, batch_size=1, max_queries=1, max_waiting=2) as address,
        ThreadPoolExecutor(8) as pool,
    ):
        asked = [pool.submit(post, address, "/retrieve", **ask) for _ in range(8)]
        # One is searched and two wait, so that five can only be refused.
        refused = [future.result() for future in islice(as_completed(asked), 5)]
        retriever.gate.set()
        assert [future.result().status_code for future in asked].count(200) in (2, 3)
        assert post(address, "/retrieve", **ask).status_code == 200
    assert {(response.status_code, response.headers["retry-after"]) for response in refused} == {(503, "1")}
    assert refused[0].json() == {"detail": "too many queries are waiting; try again in a moment"}


@pytest.mark.parametrize(("transient", "retry_after"), [(True, "1"), (False, None)])
def test_an_unavailable_retriever_is_503_and_never_an_empty_result(address, retriever, transient, retry_after):
    retriever.error = RetrieverUnavailable("the index is gone", transient=transient)
    for path in ("/retrieve", "/v1/search"):
        response = post(address, path, json={"queries": ["norway"]})
        assert (response.status_code, response.headers.get("retry-after")) == (503, retry_after)
        assert response.json() == {"detail": "the retriever is unavailable: the index is gone"}
    retriever.error = None
    assert post(address, "/retrieve", json={"queries": ["norway"]}).status_code == 200


def test_a_bug_is_500_without_its_traceback_and_the_server_goes_on(address, retriever):
    retriever.error = ZeroDivisionError("secret path")
    response = post(address, "/retrieve", json={"queries": ["norway"]})
    assert (response.status_code, response.json()) == (500, {"detail": "the server failed; its log tells why"})
    retriever.error = None
    assert post(address, "/retrieve", json={"queries": ["norway"]}).status_code == 200


def test_a_client_that_leaves_in_the_middle_of_its_request_disturbs_nobody(address, retriever):
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as left:
        left.sendall(
            b"POST /retrieve HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b'Content-Length: 100\r\n\r\n{"queries"'
        )
    deadline = time.monotonic() + 30
    while 'path="/retrieve",status="400"' not in httpx.get(f"{address}/metrics").text:
        assert time.monotonic() < deadline
    assert post(address, "/retrieve", json={"queries": ["norway"]}).status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [("127.0.0.1", 200), ("LOCALHOST:8000", 200), ("[::1]:1", 200), ("evil.example", 400), ("127.0.0.1.evil", 400)],
)
def test_a_request_to_another_name_is_refused(address, host, status):
    assert httpx.get(f"{address}/v1/info", headers={"Host": host}).status_code == status


def test_an_answer_on_its_way_is_finished_when_the_server_stops(serving, retriever):
    retriever.gate.clear()
    with ThreadPoolExecutor(1) as pool:
        with serving(retriever) as address:
            answer = pool.submit(post, address, "/retrieve", json={"queries": ["norway"]})
            while not retriever.batches:
                assert not answer.done()
            threading.Timer(0.3, retriever.gate.set).start()
        assert answer.result().status_code == 200
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{address}/healthz")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost", "::1"])
def test_the_loopback_needs_no_permission(host):
    assert set(allowed_hosts(host)) >= {"127.0.0.1", "localhost", "[::1]"}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "node7.lan"])
def test_another_address_needs_the_names_it_is_called_by(host):
    with pytest.raises(ConfigError, match=rf"at {re.escape(host)} other machines .* --expose"):
        allowed_hosts(host)
    assert allowed_hosts(host, ["node7.lan", "10.0.0.7", "fe80::1"])[3:] == ("node7.lan", "10.0.0.7", "[fe80::1]")


@pytest.mark.parametrize("name", ["*", "*.lan", "node7:8000", "http://node7", "", "a b"])
def test_what_is_no_name_of_a_machine_is_refused(name):
    with pytest.raises(ConfigError, match="no name of a machine"):
        allowed_hosts("0.0.0.0", [name])


def test_a_port_that_is_taken_or_impossible_is_named():
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"127\.0\.0\.1 port {port} cannot be opened: .*--port 0"):
            listen("127.0.0.1", port)
    with pytest.raises(ConfigError, match=r"0 to 65535, .* got 65536"):
        listen("127.0.0.1", 65536)


def test_an_answer_does_not_wait_for_the_client_to_acknowledge_its_head():
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        connection, _ = listener.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize("wrong", [{"default_top_k": 101}, {"max_queries": 5000}, {"batch": 3}, {"batch_size": 0}])
def test_settings_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ServerSettings(**wrong)


def test_without_the_web_framework_the_command_that_installs_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'search-env\[serve\]'"):
        make_server(Watched(), ServerSettings())


def test_any_document_can_be_written(serving):
    document = Document(id="\ud800", title="\udfff\x00", text="word \u2028 💡")
    with serving(InMemoryRetriever([document])) as address:
        response = post(address, "/v1/search", json={"queries": ["word"]})
    (hit,) = json.loads(response.content)["results"][0]
    assert (hit["id"], hit["title"], hit["text"]) == (document.id, document.title, document.text)
