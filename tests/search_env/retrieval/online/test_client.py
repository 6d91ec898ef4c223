"""Each search engine is asked as it documents, read strictly, and its key shows nowhere."""

import io
import json
import logging
import os
import pickle
import traceback

import httpx
import pytest

from search_env.errors import ConfigError, RetrieverUnavailable
from search_env.retrieval.online.client import ProviderClient
from search_env.retrieval.online.providers import Google, SearchResult, SearxNG, Serper

CANARY = "canary-8c1f0e6b2d"
OSLO = SearchResult("https://en.wikipedia.org/wiki/Oslo", "Oslo - Wikipedia", "Oslo is the capital of Norway.")
BARE = SearchResult("https://www.visitoslo.com/", "Visit Oslo", "")

SERPER_REPLY = {
    "searchParameters": {"q": "capital of norway", "type": "search", "num": 10, "engine": "google"},
    "knowledgeGraph": {"title": "Oslo", "type": "Capital of Norway", "attributes": {"Elevation": "23 m"}},
    "organic": [
        {"title": OSLO.title, "link": OSLO.url, "snippet": OSLO.snippet, "sitelinks": [], "position": 1},
        {"title": BARE.title, "link": BARE.url, "position": 2},
    ],
    "peopleAlsoAsk": [{"question": "Is Oslo big?", "snippet": "Yes.", "title": "Oslo", "link": "https://x.example"}],
    "credits": 1,
}
GOOGLE_REPLY = {
    "kind": "customsearch#search",
    "url": {"type": "application/json", "template": "https://www.googleapis.com/customsearch/v1?q={searchTerms}"},
    "searchInformation": {"searchTime": 0.2, "totalResults": "2"},
    "items": [
        {"kind": "customsearch#result", "title": OSLO.title, "link": OSLO.url, "snippet": OSLO.snippet, "pagemap": {}},
        {"kind": "customsearch#result", "title": BARE.title, "link": BARE.url, "displayLink": "www.visitoslo.com"},
    ],
}
SEARX_REPLY = {
    "query": "capital of norway",
    "number_of_results": 0,
    "results": [
        {"url": OSLO.url, "title": OSLO.title, "content": OSLO.snippet, "engines": ["bing"], "score": 4.0},
        {"url": BARE.url, "title": BARE.title, "content": None, "engines": ["bing"], "score": 1.0},
    ],
    "answers": [],
    "unresponsive_engines": [["duckduckgo", "timeout"]],
}
PROVIDERS = {
    "serper": (Serper(), SERPER_REPLY),
    "google": (Google("0123abc"), GOOGLE_REPLY),
    "searxng": (SearxNG("http://localhost:8888/"), SEARX_REPLY),
}


@pytest.fixture(autouse=True)
def keys(monkeypatch):
    monkeypatch.setenv("SERPER_API_KEY", CANARY)
    monkeypatch.setenv("GOOGLE_API_KEY", CANARY)


def client_of(name, answer, key_env=None):
    """A client and the requests that it has made."""
    requests = []

    def handle(request):
        requests.append(request)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return ProviderClient(PROVIDERS[name][0], key_env, 5.0, httpx.MockTransport(handle)), requests


@pytest.mark.parametrize("name", PROVIDERS)
def test_results_are_read_in_order(name):
    client, _ = client_of(name, httpx.Response(200, json=PROVIDERS[name][1]))
    assert client.search("capital of norway") == [OSLO, BARE]


def test_serper_is_posted_json_with_the_key_in_a_header():
    _, (request,) = asked("serper")
    assert (request.method, str(request.url)) == ("POST", "https://google.serper.dev/search")
    assert json.loads(request.content) == {"q": 'Œuvre "a"&b', "num": 10}
    assert request.headers["X-API-KEY"] == CANARY


def test_google_is_asked_with_the_key_in_a_header_and_not_in_the_url():
    _, (request,) = asked("google")
    assert request.method == "GET"
    assert str(request.url).startswith("https://customsearch.googleapis.com/customsearch/v1?")
    assert dict(request.url.params) == {"cx": "0123abc", "q": 'Œuvre "a"&b', "num": "10"}
    assert request.headers["X-Goog-Api-Key"] == CANARY


def test_searxng_is_asked_for_json_and_without_a_key():
    _, (request,) = asked("searxng")
    assert request.method == "GET"
    assert request.url.copy_with(query=None) == "http://localhost:8888/search"
    assert dict(request.url.params) == {"q": 'Œuvre "a"&b', "format": "json"}
    assert CANARY not in str(request.headers.raw)


def asked(name):
    client, requests = client_of(name, httpx.Response(200, json=PROVIDERS[name][1]))
    client.search('Œuvre "a"&b')
    return client, requests


@pytest.mark.parametrize(
    ("name", "empty"),
    [
        ("serper", {"organic": [], "searchParameters": {}}),
        ("google", {"kind": "customsearch#search", "searchInformation": {"totalResults": "0"}}),
        ("searxng", {"query": "x", "results": [], "unresponsive_engines": []}),
    ],
)
def test_nothing_found_is_no_failure(name, empty):
    client, _ = client_of(name, httpx.Response(200, json=empty))
    assert client.search("x") == []


@pytest.mark.parametrize("name", PROVIDERS)
@pytest.mark.parametrize(
    "body",
    [b"", b"<html>Sign in</html>", b"{", b"[]", b"null", b"{}", b'{"message": "ok"}', b"\xff\xfe",
     b'{"organic": {}, "results": {}, "kind": "x", "items": {}}',
     b'{"organic": [1], "results": [1], "kind": "customsearch#search", "items": [1]}',
     b'{"organic": [{"link": 7}], "results": [{"url": 7}], "kind": "customsearch#search", "items": [{"link": 7}]}'],
)  # fmt: skip
def test_a_reply_of_another_shape_is_a_failure_and_not_an_empty_result(name, body):
    client, _ = client_of(name, httpx.Response(200, content=body))
    with pytest.raises(RetrieverUnavailable, match="cannot be read") as caught:
        client.search("x")
    assert not caught.value.transient
    assert caught.value.__cause__ is not None


def test_searxng_without_any_engine_is_a_failure_and_not_an_empty_result():
    reply = {"results": [], "unresponsive_engines": [["google", "CAPTCHA"]]}
    client, _ = client_of("searxng", httpx.Response(200, json=reply))
    with pytest.raises(RetrieverUnavailable, match="none of the engines"):
        client.search("x")


@pytest.mark.parametrize(
    ("name", "status", "body", "transient"),
    [
        ("serper", 403, {"message": "Unauthorized.", "statusCode": 403}, False),
        ("serper", 400, {"message": "Not enough credits", "statusCode": 400}, False),
        ("serper", 429, {"message": "Too many requests", "statusCode": 429}, True),
        ("google", 400, {"error": {"code": 400, "message": "API key not valid. Please pass a valid API key."}}, False),
        ("google", 401, {"error": {"code": 401, "status": "UNAUTHENTICATED"}}, False),
        ("google", 429, {"error": {"message": "Quota exceeded for 'Queries' and limit 'Queries per day'"}}, False),
        ("google", 429, {"error": {"message": "Quota exceeded for 'Queries' and limit 'per minute'"}}, True),
        ("searxng", 403, {}, False),
        ("searxng", 301, {}, False),
        *[(name, status, {}, True) for name in PROVIDERS for status in (500, 502, 503, 504)],
    ],
)
def test_a_refusal_is_a_failure_that_says_whether_another_try_is_worth_it(name, status, body, transient):
    client, requests = client_of(name, httpx.Response(status, json=body, headers={"location": "https://x.example/"}))
    with pytest.raises(RetrieverUnavailable, match=f"{name} refused a search with status {status}") as caught:
        client.search("x")
    assert caught.value.transient is transient
    assert len(requests) == 1  # Neither tried again nor redirected: the key stays where it belongs.


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (httpx.ConnectError("[Errno 111] Connection refused"), True),
        (httpx.ReadTimeout("timed out"), True),
        (httpx.RemoteProtocolError("Server disconnected"), True),
        (httpx.LocalProtocolError("Illegal header value"), False),
        (httpx.DecodingError("bad gzip"), False),
    ],
)
def test_an_engine_that_cannot_be_reached_is_a_failure(error, transient):
    client, _ = client_of("serper", error)
    with pytest.raises(RetrieverUnavailable, match="serper cannot be reached") as caught:
        client.search("x")
    assert caught.value.transient is transient
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("value", [None, "", " \n", "kéy", "a\x00b"])
def test_without_a_key_the_error_says_what_to_set(monkeypatch, value):
    client, requests = client_of("serper", httpx.Response(200, json=SERPER_REPLY), key_env="MY_KEY")
    if value is not None:
        monkeypatch.setattr(os, "environ", {"MY_KEY": value})
    with pytest.raises(ConfigError, match="export MY_KEY="):
        client.search("x")
    assert requests == []


def test_white_space_around_a_key_is_not_part_of_it(monkeypatch):
    monkeypatch.setenv("SERPER_API_KEY", f" {CANARY}\n")
    _, (request,) = asked("serper")
    assert request.headers["X-API-KEY"] == CANARY


@pytest.mark.parametrize("name", ["serper", "google"])
@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, json={"organic": [], "kind": "customsearch#search"}),
        httpx.Response(401, text=f"the key {CANARY} is not valid"),
        httpx.Response(403, text="x" * 195 + CANARY),
        httpx.Response(302, headers={"location": f"https://x.example/?key={CANARY}"}),
        httpx.Response(503, json={"key": CANARY}),
        httpx.Response(200, json={"key": CANARY}),
        httpx.Response(200, text=CANARY),
        httpx.ReadTimeout("timed out"),
        httpx.ConnectError(f"no route to {CANARY}"),
    ],
    ids=repr,
)
def test_the_key_is_in_no_log_error_repr_or_pickle(name, answer, capfd):
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    client, _ = client_of(name, answer)
    shown = []
    try:
        client.search("x")
    except RetrieverUnavailable as error:
        # The chained error of the library is its own; ours, and everything that is printed of it, must not tell.
        shown += [str(error), repr(error), repr(vars(error)), pickle.dumps(error).decode("latin-1")]
        if CANARY not in str(answer):
            shown.append("".join(traceback.format_exception(error)))
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    client._transport = None  # Our fake one cannot be pickled.
    shown += [repr(client), repr(client._provider), pickle.dumps(client).decode("latin-1"), log.getvalue()]
    shown += capfd.readouterr()
    assert not [text for text in shown if CANARY in text]


def test_a_client_opens_anew_in_another_process(monkeypatch):
    client, requests = client_of("serper", httpx.Response(200, json=SERPER_REPLY))
    client.search("x")
    monkeypatch.setenv("SERPER_API_KEY", "another")
    client.search("x")
    monkeypatch.setattr(os, "getpid", lambda: -1)
    client.search("x")
    assert [request.headers["X-API-KEY"] for request in requests] == [CANARY, CANARY, "another"]
