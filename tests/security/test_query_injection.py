"""What a model writes between the query tags reaches a search server as the words of a query, and as nothing else."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_env import SearchQAEnv
from search_env.datasets import Dataset
from search_env.retrieval.elasticsearch import ElasticsearchSettings
from search_env.retrieval.elasticsearch_bodies import MAX_QUERY_CHARS
from search_env.retrieval.opensearch import OpenSearchSettings
from search_env.types import Question

pytest.importorskip("elasticsearch")
pytest.importorskip("opensearchpy")

NASTY = [
    "*",
    "/.*/",
    "capital AND (",
    "_exists_:title",
    'a"}},"script":{"source":"Runtime.exec()"',
    '\n{"index":"other"}\n{"query":{"match_all":{}}}\n',
    "x\0y",
    "\ud800 half a pair \udfff",
    "{{query}} ${query} %s \\u0000",
    "x" * 39_000,
    "a " * 15_000,
]
QUERY_LANGUAGES = {"query_string", "simple_query_string", "regexp", "wildcard", "prefix", "fuzzy", "script", "template"}
QUESTION = Question(id="q", text="Who?", answers=("I",))


class Client:
    """Keeps what it is asked to send; finds nothing."""

    def __init__(self):
        self.sent = []

    def msearch(self, **request):
        self.sent.append(json.loads(json.dumps(request)))
        empty = {"timed_out": False, "_shards": {"total": 1, "failed": 0}, "hits": {"hits": []}}
        return {"responses": [empty] * (len(request["body"]) // 2)}


def keys(value):
    if isinstance(value, dict):
        return set(value).union(*map(keys, value.values()))
    return set().union(*map(keys, value)) if isinstance(value, list) else set()


def search(settings_class, query):
    """The body of the search that a model's segment leads to, and all that was sent with it."""
    retriever = settings_class(url="http://127.0.0.1:9200", index="wiki", timeout_s=5).build()
    retriever._clients[os.getpid()] = client = Client()
    retriever._fingerprint = "no server is asked for one"
    env = SearchQAEnv(dataset=Dataset(name="q", split="dev", questions=(QUESTION,)), retriever=retriever, top_k=5)
    env.reset(seed=0)
    *_, info = env.step(f"hm <begin_of_query>{query}<end_of_query>")
    return client.sent, info


def check(sent):
    (request,) = sent
    assert request["index"] == "wiki" and set(request) == {"index", "body", "search_type"}
    header, body = request["body"]
    assert header == {}
    text = body["query"]["multi_match"].pop("query")
    assert isinstance(text, str) and len(text) <= MAX_QUERY_CHARS
    text.encode()
    assert "\0" not in text
    assert set(body) == {"query", "size", "timeout", "sort", "_source", "track_total_hits"}
    assert body["query"] == {
        "multi_match": {"type": "best_fields", "fields": ["title^1.5", "text"], "tie_breaker": 0.3},
    }
    assert (body["size"], body["timeout"]) == (5, "5000ms")
    assert not keys(request) & QUERY_LANGUAGES
    return text


@pytest.mark.parametrize("settings_class", [ElasticsearchSettings, OpenSearchSettings])
@pytest.mark.parametrize("query", NASTY, ids=lambda query: ascii(query[:20]))
def test_a_models_query_is_one_text_in_a_fixed_body(settings_class, query):
    """Risk 1: query injection into Elasticsearch."""
    sent, info = search(settings_class, query)
    assert info["searches"] == 1
    text = check(sent)
    assert text.split()[0][:20] in query


@given(st.text(st.characters(exclude_categories=()), max_size=60))
def test_any_query_at_all_is_one_text_in_a_fixed_body(query):
    """Risk 1: query injection into Elasticsearch, with whatever comes to mind."""
    sent, _ = search(ElasticsearchSettings, query)
    if sent:
        check(sent)
