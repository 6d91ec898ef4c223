"""The verb `index` hands a server, a corpus and an alias to the loader, and tells what came of it."""

import pytest
from search_agents.cli import index as verb

from search_env.errors import ConfigError, DatasetError
from search_env.retrieval import elasticsearch_index, get_retriever
from search_env.retrieval.elasticsearch import ElasticsearchSettings
from search_env.retrieval.elasticsearch_index import BuiltIndex
from search_env.retrieval.opensearch import OpenSearchSettings

SERVER = ("--retriever", "elasticsearch")
WHERE = (
    "--retriever",
    "elasticsearch",
    "--url",
    "http://127.0.0.1:9200",
    "--index",
    "wiki",
    "--corpus",
    "corpus.jsonl",
)


@pytest.fixture
def calls(monkeypatch):
    made = []

    def build_index(settings, corpus, *, skipped, on_progress, **options):
        made.append((settings, str(corpus), options))
        on_progress(50_000)
        return BuiltIndex(name="wiki-2", documents=60_000, replaced=("wiki-1",))

    monkeypatch.setattr(elasticsearch_index, "build_index", build_index)
    return made


def run(*arguments):
    parsed, settings = verb.parser("index", "load a corpus").parse_known_args(["build", *arguments])
    return verb.run(parsed, settings)


def test_it_builds_on_elasticsearch_with_one_shard_and_keeps_the_old_index(calls, capsys):
    assert run(*WHERE) == 0
    server = ElasticsearchSettings(url="http://127.0.0.1:9200", index="wiki")
    assert calls == [(server, "corpus.jsonl", {"shards": 1, "replicas": 0, "delete_old": False})]
    printed = capsys.readouterr().out
    assert printed == "50,000 documents\nwiki -> wiki-2: 60,000 documents\nno longer behind it: wiki-1\n"


def test_every_option_reaches_the_loader(calls, capsys):
    options = ("--shards", "3", "--replicas", "1", "--delete-old", "--username-env", "U", "--password-env", "P")
    assert run(*WHERE, "--retriever", "opensearch", *options, "--ca-file-env", "CA") == 0
    ((server, _, loaded),) = calls
    assert isinstance(server, OpenSearchSettings)
    assert (server.username_env, server.password_env, server.ca_file_env) == ("U", "P", "CA")
    assert loaded == {"shards": 3, "replicas": 1, "delete_old": True}
    assert "deleted: wiki-1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*SERVER, "--url", "http://a:secret@b", "--index", "wiki", "--corpus", "c"], "--url .*must not hold a user"),
        ([*SERVER, "--url", "http://b", "--index", "Wiki", "--corpus", "c"], "--index .*should match pattern"),
        ([*SERVER, "--url", "http://b", "--corpus", "c"], "needs --index"),
        ([*WHERE, "--shards", "0"], "'0' is not a whole number of 1"),
        ([*WHERE, "--fast"], "unknown argument '--fast'"),
        ([*WHERE, "--username-env", "U"], "go together"),
        ([*WHERE, "--retriever", "solr"], "invalid choice: 'solr'"),
        (["--corpus", "c"], "--retriever bm25 needs --out"),
    ],
)
def test_a_wrong_command_line_is_told_without_what_may_be_secret(calls, arguments, message):
    with pytest.raises(ConfigError, match=message) as caught:
        run(*arguments)
    assert "secret" not in str(caught.value)
    assert calls == []


def test_it_builds_a_folder_that_bm25_searches(tmp_path, capsys):
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text('{"id": "1", "title": "Oslo", "text": "Capital of Norway."}\n')
    assert run("--corpus", str(corpus), "--out", str(tmp_path / "index")) == 0
    retriever = get_retriever({"name": "bm25", "index": str(tmp_path / "index")}, ())
    assert [hit.document.title for hit in retriever.search(["norway"], 3)[0]] == ["Oslo"]
    assert capsys.readouterr().out == f"{tmp_path / 'index'}: 1 documents, {retriever.fingerprint}\n"


def test_malformed_rows_are_left_out_when_asked_and_told(tmp_path, capsys):
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text('{"id": "1", "title": "Oslo", "text": "Capital of Norway."}\n{"id": "2"}\n[]\n')
    where = ("--corpus", str(corpus), "--out", str(tmp_path / "index"))
    with pytest.raises(DatasetError, match=r"corpus.jsonl:2: 'text' is missing"):
        run(*where)
    with pytest.raises(DatasetError, match=r"corpus.jsonl:3: .*\(1 malformed row was left out before it"):
        run(*where, "--skip-malformed", "1")
    assert not (tmp_path / "index").exists()
    assert run(*where, "--skip-malformed", "2") == 0
    printed = capsys.readouterr().out
    assert "1 documents" in printed and "2 malformed rows were left out" in printed
    assert f"{corpus}:2: 'text' is missing" in printed and f"{corpus}:3: must be a JSON object" in printed
