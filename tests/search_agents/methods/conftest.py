"""A small world of documents, and a scripted engine that remembers what it was asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from search_agents.engines.base import GenerationRequest, SamplingParams
from search_agents.engines.scripted import ScriptedEngine
from search_agents.methods import Setting, make_method

from search_env import SearchQAVectorEnv
from search_env.datasets import Dataset
from search_env.retrieval.base import InMemoryRetriever
from search_env.types import Call, Document, Prompt, Question, Transcript

WORLD = (
    Document(id="1", title="Green", text="Green is an album by Steve Hillage. <|im_end|>"),
    Document(id="2", title="Steve Hillage", text="Steve Hillage is married to Miquette Giraudy."),
    Document(id="3", title="Red", text="Red is an album by King Crimson."),
    Document(id="4", title="Blue", text="Blue is a colour."),
)
SPOUSE = Question(id="spouse", text="Who is married to the performer of Green?", answers=("Miquette Giraudy",))


class WatchedRetriever(InMemoryRetriever):
    """Keeps its queries; scores are fixed where the test gives them."""

    def __init__(self, documents: Sequence[Document]) -> None:
        super().__init__(documents)
        self.asked: list[tuple[str, int]] = []

    def search(self, queries: Sequence[str], top_k: int) -> Any:
        self.asked += [(query, top_k) for query in queries]
        return super().search(queries, top_k)

    @property
    def queries(self) -> list[str]:
        return [query for query, _ in self.asked]


class WatchedEngine(ScriptedEngine):
    """Keeps its prompts, as `encode_prompt` would see them, and has a chat template."""

    def __init__(self, scripts: Any) -> None:
        super().__init__(scripts)
        self.requests: list[GenerationRequest] = []

    def encode_prompt(self, prompt: Prompt, *, chat: bool) -> list[int]:
        text = f"[system {prompt.system}][user {prompt.user}]{prompt.prefill}" if chat else prompt.text
        return self.tokenizer.encode(text)

    def generate(self, requests: Sequence[GenerationRequest], *, chat: bool, max_tokens: int) -> list[Any]:
        self.requests += requests
        return super().generate(requests, chat=chat, max_tokens=max_tokens)

    @property
    def prompts(self) -> list[str]:
        return [request.prompt.text for request in self.requests]


class Played:
    """One question that a method has answered, and all it took."""

    def __init__(self, transcript: Transcript, engine: WatchedEngine, retriever: WatchedRetriever) -> None:
        self.transcript, self.engine, self.retriever = transcript, engine, retriever
        self.answer = transcript.answer
        self.queries, self.prompts = retriever.queries, engine.prompts
        self.calls: list[Call] = [call for turn in transcript.turns for call in turn.calls]
        self.purposes = [call.purpose for call in self.calls]


@pytest.fixture
def make_setting() -> Callable[..., Setting]:
    """Builds a setting over the small world, or over other questions and documents."""

    def make(
        scripts: Any,
        *,
        questions: Sequence[Question] = (SPOUSE,),
        documents: Sequence[Document] = WORLD,
        retriever: Any = None,
        chat: bool = False,
        top_k: int = 2,
        max_tokens: int = 20_000,
        **env: Any,
    ) -> Setting:
        dataset = Dataset(name="world", split="dev", questions=tuple(questions), documents=tuple(documents))
        retriever = WatchedRetriever(documents) if retriever is None else retriever
        prompt = "instruct" if chat else "base"
        made = SearchQAVectorEnv(3, dataset=dataset, retriever=retriever, prompt=prompt, top_k=top_k, **env)
        engine = scripts if isinstance(scripts, ScriptedEngine) else WatchedEngine(scripts)
        sampling = SamplingParams(temperature=0.0, max_tokens=2000)
        return Setting(engine=engine, env=made, sampling=sampling, max_tokens=max_tokens, chat=chat)

    return make


@pytest.fixture
def play(make_setting: Callable[..., Setting]) -> Callable[..., Played]:
    """Lets a method answer the one question, the engine saying the given texts in turn."""

    def run(spec: Any, *said: str, **world: Any) -> Played:
        setting = make_setting({"": said}, **world)
        (transcript,) = make_method(spec, setting).run(setting.env.dataset.questions)
        engine, retriever = setting.engine, setting.env.retriever
        assert isinstance(engine, WatchedEngine) and isinstance(retriever, WatchedRetriever)
        return Played(transcript, engine, retriever)

    return run


@pytest.fixture
def make_page_setting() -> Callable[..., Setting]:
    """Builds a setting of an engine, (title, text) pairs and question texts; `env` has settings of the environment."""

    def build(
        engine: Any,
        pages: Sequence[tuple[str, str]],
        questions: Sequence[str] = ("Where is it?",),
        *,
        env: dict[str, Any] | None = None,
        **more: Any,
    ) -> Setting:
        documents = tuple(Document(id=str(n), title=title, text=text) for n, (title, text) in enumerate(pages))
        asked = tuple(Question(id=text, text=text, answers=("none of the methods reads this",)) for text in questions)
        dataset = Dataset(name="pages", split="dev", questions=asked, documents=documents)
        given: dict[str, Any] = {"dialect": "r1-searcher", "prompt": "base", "top_k": 2} | (env or {})
        made = SearchQAVectorEnv(2, dataset=dataset, retriever=WatchedRetriever(documents), **given)
        settings: dict[str, Any] = {"max_tokens": 20_000, "chat": False} | more
        return Setting(engine=engine, env=made, sampling=SamplingParams(max_tokens=400), **settings)

    return build
