"""A language model in the place of a search engine: what it is asked, what becomes of what it writes, the noise."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from search_agents.engines.base import GenerationRequest
from search_agents.engines.scripted import ScriptedEngine
from search_agents.retrieval.simulate import SimulatedRetriever, SimulatedSettings, noise_probability

from search_env import SearchQAEnv
from search_env.dialects import get_dialect
from search_env.errors import ConfigError, ModelError, RetrieverUnavailable
from search_env.types import Prompt

WRITTEN = " Oslo: Oslo is a city.\n\nDoc 2: Norway: Its capital is Oslo.\n3. no title\n(4) Oslo: Oslo is a city.\nAll."


class Writer(ScriptedEngine):
    def __init__(self, written: str = WRITTEN, template: str | None = None) -> None:
        super().__init__(lambda prompt: written)
        self.tokenizer.chat_template = template  # type: ignore[attr-defined]
        self.batches: list[list[str]] = []

    def encode_prompt(self, prompt: Prompt, *, chat: bool) -> list[int]:
        return self.tokenizer.encode(f"[{prompt.system}][{prompt.user}]" if chat else prompt.text)

    def generate(self, requests: Sequence[GenerationRequest], *, chat: bool, max_tokens: int) -> list[Any]:
        self.batches.append([request.prompt.text for request in requests])
        return super().generate(requests, chat=chat, max_tokens=max_tokens)


def simulated(engine: Any, **settings: Any) -> SimulatedRetriever:
    return SimulatedRetriever(SimulatedSettings(model="scripted", **settings), engine)


@pytest.mark.parametrize("template", [None, "chat"])
def test_each_numbered_line_is_a_document_with_its_title(template: str | None) -> None:
    (hits,) = simulated(Writer(template=template)).search(["capital of Norway"], 5)
    assert [(hit.document.title, hit.document.text) for hit in hits] == [
        ("Oslo", "Oslo is a city."),
        ("Norway", "Its capital is Oslo."),
        ("capital of Norway", "no title"),
    ]
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert len({hit.document.id for hit in hits}) == 3


def test_no_more_than_k_documents_count() -> None:
    assert len(simulated(Writer()).search(["q"], 2)[0]) == 2
    assert len(simulated(Writer(" one\nQuery: another\n2. two")).search(["q"], 2)[0]) == 1, "the next query is not ours"


@pytest.mark.parametrize("written", ["", " \n\n ", "\n3.\n", "\nnot numbered"])
def test_what_writes_nothing_finds_nothing(written: str) -> None:
    assert simulated(Writer(written, template="chat")).search(["q"], 3) == [()]


def test_the_model_reads_the_query_and_nothing_else_and_each_query_once() -> None:
    engine = Writer()
    found = simulated(engine, batch_size=2).search(["a", "b\nPassages:</answer>", "a", "c"], 3)
    assert found[0] == found[2] and [len(batch) for batch in engine.batches] == [2, 1]
    first, second = engine.batches[0]
    assert first.endswith("\n\nQuery: a\n1.") and "Write 3 passages" in first
    assert second.endswith("\n\nQuery: b Passages:‹/answer›\n1.")


@given(st.text(max_size=80))
def test_whatever_is_written_the_dialect_can_render_it(written: str) -> None:
    dialect = get_dialect("search-r1")
    (hits,) = simulated(Writer(written, template="chat")).search(["q"], 3)
    rendered = dialect.render_documents(hits)
    assert rendered.count("<information>") == rendered.count("</information>") == 1


# --- noise ---


def test_noise_grows_as_the_paper_says() -> None:
    assert noise_probability(0, 200, start=0.25, end=0.5) == 0.25
    assert noise_probability(200, 200, start=0.25, end=0.5) == noise_probability(999, 200, start=0.25, end=0.5) == 0.5
    # (4^(1/2) - 1) / (4 - 1) = 1/3 of the way at half of the steps.
    assert noise_probability(100, 200, start=0.25, end=0.5) == pytest.approx(0.25 + 0.25 / 3)
    grown = [noise_probability(step, 10, start=0.0, end=1.0) for step in range(11)]
    rises = [after - before for before, after in pairwise(grown)]
    assert rises == sorted(rises) and rises[0] > 0


def test_noise_is_asked_for_with_its_probability_the_same_each_time() -> None:
    queries = [f"query {number}" for number in range(400)]
    engine = Writer()
    retriever = simulated(engine, noise=0.3)
    retriever.search(queries, 1)
    asked = ["are noise" in prompt for batch in engine.batches for prompt in batch]
    assert asked == [retriever.is_noise(query) for query in queries] and 80 < sum(asked) < 160
    other = simulated(engine, noise=0.3, seed=1)
    assert asked != [other.is_noise(query) for query in queries]
    assert not any(map(simulated(engine).is_noise, queries)) and all(map(simulated(engine, noise=1).is_noise, queries))


def test_a_curriculum_raises_the_noise_over_the_steps_of_a_training() -> None:
    retriever = simulated(Writer(), noise=0.25, noise_end=0.5)
    seen = []
    for step in (0, 100, 200):
        retriever.at_step(step, 200)
        seen.append(retriever.noise)
    assert seen == pytest.approx([0.25, 1 / 3, 0.5])
    constant = simulated(Writer(), noise=0.25)
    constant.at_step(200, 200)
    assert constant.noise == 0.25


# --- settings and failures ---


def test_a_model_that_fails_fails_the_search() -> None:
    class Broken(Writer):
        def generate(self, *_: Any, **__: Any) -> Any:
            raise RuntimeError("CUDA out of memory")

    with pytest.raises(RetrieverUnavailable, match="plays the search engine failed: CUDA out of memory"):
        simulated(Broken()).search(["q"], 1)
    with pytest.raises(ConfigError, match="top_k"):
        simulated(Writer()).search(["q"], 0)


def test_a_spec_names_the_model_and_its_fingerprint_tells_what_shapes_the_documents() -> None:
    pytest.importorskip("torch")
    made = SimulatedSettings(model="tiny").build()
    assert made.fingerprint.startswith("simulated-")
    assert pickle.loads(pickle.dumps(made)).fingerprint == made.fingerprint
    others = [{"noise": 0.5}, {"max_tokens": 9}, {"temperature": 1.0}, {"seed": 1}]
    prints = {SimulatedSettings(model="tiny", **other).build().fingerprint for other in others}
    assert len(prints | {made.fingerprint}) == 5
    assert SimulatedSettings(model="tiny", batch_size=2).build().fingerprint == made.fingerprint
    with pytest.raises(ModelError, match="no model folder"):
        SimulatedSettings(model="./nowhere").build()


def test_an_environment_searches_it_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    place = "search_agents.retrieval.simulate:SimulatedSettings"
    monkeypatch.setattr("search_env.retrieval.retriever_names", lambda: {"simulated": place})
    spec = {"name": "simulated", "model": "tiny", "max_tokens": 40}
    env = SearchQAEnv(retriever=spec, top_k=2)
    env.reset(seed=0)
    env.step("<begin_of_query> a film <end_of_query>")
    assert env.transcript.queries == ("a film",) and env.retriever.fingerprint.startswith("simulated-")
    assert all(hit.document.id.startswith("simulated-") for hit in env.transcript.turns[0].hits)
    with pytest.raises(ConfigError, match=r"noise: .* Its settings: model, noise"):
        SearchQAEnv(retriever={**spec, "noise": 3})


def test_a_real_model_writes_the_same_alone_and_in_a_batch() -> None:
    pytest.importorskip("torch")
    retriever = SimulatedSettings(model="tiny", max_tokens=24, batch_size=2).build()
    queries = ["capital of Norway", "a film", "who?"]
    assert retriever.search(queries, 2) == [retriever.search([query], 2)[0] for query in queries]
