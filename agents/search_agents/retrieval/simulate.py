"""Simulated search: a language model writes the documents that a search engine might find.

It knows the query and nothing else, so no answer of a question set can reach the
documents. What it writes is true or not as the model knows better or worse: this is a
search engine to train against, and none to cite.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from search_agents.engines.base import Completion, Engine, GenerationRequest, SamplingParams
from search_agents.methods.prompts import begun_prompt
from search_agents.models import find_model, model_fingerprint
from search_env.dialects import make_inert
from search_env.errors import ConfigError, RetrieverUnavailable
from search_env.types import Document, Hit, Prompt

__all__ = ["SimulatedRetriever", "SimulatedSettings", "noise_probability"]

_TASK = """\
You are a search engine. Write {count} passages of about 30 words each that a search for the query finds: numbered, \
one a line, each with the title of its page. {quality} Two of them may look like this:

Query: Ombry river length
1. Ombry: {first}
2. Rivers of Lower Quelling: {second}"""
_USEFUL = {
    "quality": "The passages are useful: they state the facts that the query asks for.",
    "first": "The Ombry is a river of Lower Quelling, 96 kilometres long, which ends in the Pale Sea.",
    "second": "The longest river of Lower Quelling is the Ombry with 96 kilometres, before the Lesk with 71.",
}
_NOISY = {
    "quality": "The passages are noise: they share words with the query and do not state what it asks for.",
    "first": "The Ombry is a river of Lower Quelling, known for its painted boats and a fair each spring.",
    "second": "The rivers of Lower Quelling were first drawn on a map by the order of its third governor.",
}

_NUMBERING = re.compile(r"^(?:(?:doc(?:ument)?|passage|result)?\s*\(?\d+[.):]+\s*)", re.IGNORECASE)
_TITLED = re.compile(r"^(?:title:\s*)?(?P<title>[^:]{1,80}):\s+(?P<text>\S.*)$", re.IGNORECASE)


class SimulatedSettings(BaseModel):
    """Settings of the retriever ``simulated``."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    model: str
    """The language model that plays the search engine: `tiny`, a model or run folder, or a hub id."""
    noise: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Probability that the documents of a query are noise; the first one where `noise_end` is given."""
    noise_end: Annotated[float, Field(ge=0, le=1)] | None = None
    """The last probability of a curriculum over training; null keeps `noise` (the authors' script: from 0.25 to
    0.5)."""
    noise_base: Annotated[float, Field(gt=1)] = 4.0
    """Base of the curriculum's growth; see `noise_probability` (the paper: 4)."""
    max_tokens: PositiveInt = 256
    """Tokens of all documents of one query together."""
    temperature: NonNegativeFloat = 0.0
    """Of the model; at 0 a query always finds the same."""
    batch_size: PositiveInt = 16
    """Queries that the model answers at once."""
    seed: NonNegativeInt = 0
    """Decides with the query whether its documents are noise, and what is sampled."""
    dtype: str = "auto"
    """Number format of the weights: auto, float32, bfloat16 or float16."""
    device: str = "cpu"
    """Device of the model: cpu, cuda, …"""

    def build(self, documents: Sequence[Document] = ()) -> SimulatedRetriever:
        """Make the retriever; see `RetrieverSettings.build`. The model is loaded by the first search.

        Args:
            documents: Not looked at: the model writes its own.

        Raises:
            ModelError: If there is no such model.
        """
        return SimulatedRetriever(self)


class SimulatedRetriever:
    """A language model in the place of a search engine (ZeroSearch, Sun et al. 2025, arXiv 2505.04588).

    A query is answered by one call: the model is asked for useful documents or, with the probability of noise, for
    noise. Each numbered line that it writes is a document; if it writes none, nothing was found. The authors' prompt
    also holds the user's question and its right answer; this one does not, so that a score means something.

    Args:
        settings: Model, noise and bounds.
        engine: The model, if it is loaded already.

    Raises:
        ModelError: If there is no such model.
    """

    def __init__(self, settings: SimulatedSettings, engine: Engine | None = None) -> None:
        self._settings = settings
        self._lock = threading.Lock()  # A model computes for one thread at a time.
        self.noise = settings.noise
        """Probability that the documents of a query are noise."""
        if engine is not None:
            self._engine = engine
        else:
            self._model = find_model(settings.model)

    def at_step(self, step: int, steps: int) -> None:
        """Set the noise of the curriculum.

        Args:
            step: Training steps that are done.
            steps: Of the whole training, at least 1.
        """
        settings = self._settings
        if settings.noise_end is not None:
            self.noise = noise_probability(
                step, steps, start=settings.noise, end=settings.noise_end, base=settings.noise_base
            )

    @cached_property
    def fingerprint(self) -> str:
        """``simulated-`` and a hash of model, prompts and settings."""
        settings = self._settings
        model = model_fingerprint(self._model) if hasattr(self, "_model") else settings.model
        shaping = settings.model_dump(mode="json", exclude={"model", "batch_size", "device"})
        return f"simulated-{hashlib.sha256(repr([model, _TASK, _USEFUL, _NOISY, shaping]).encode()).hexdigest()[:16]}"

    def search(self, queries: Sequence[str], top_k: int) -> list[tuple[Hit, ...]]:
        """Write documents for each query, each different one once; see `Retriever.search`.

        Raises:
            ConfigError: If `top_k` is below 1.
            RetrieverUnavailable: If the model failed.
        """
        if top_k < 1:
            raise ConfigError(f"top_k is the number of documents to return and must be at least 1, got {top_k}")
        different, size = list(dict.fromkeys(queries)), self._settings.batch_size
        found: dict[str, tuple[Hit, ...]] = {}
        with self._lock:
            try:
                for start in range(0, len(different), size):
                    batch = different[start : start + size]
                    found |= dict(zip(batch, self._write(batch, top_k), strict=True))
            except RuntimeError as error:  # torch's, and that of a server that is gone
                name = self._settings.model
                raise RetrieverUnavailable(
                    f"the model {name!r} that plays the search engine failed: {error}"
                ) from error
        return [found[query] for query in queries]

    def is_noise(self, query: str) -> bool:
        """Whether the documents of a query are noise; drawn from the seed and the query."""
        return self._draw(query) / 2**64 < self.noise

    def _write(self, queries: Sequence[str], top_k: int) -> list[tuple[Hit, ...]]:
        settings = self._settings
        stop = ("\nQuery:", f"\n{top_k + 1}.")
        sampling = SamplingParams(temperature=settings.temperature, max_tokens=settings.max_tokens, stop=stop)
        requests = [
            GenerationRequest(prompt=self._prompt(query, top_k), sampling=sampling, seed=self._draw(query))
            for query in queries
        ]
        longest = getattr(self._engine, "max_context", 1 << 20)
        written = self._engine.generate(requests, chat=self._chat, max_tokens=longest)
        return [_hits(query, completion, top_k) for query, completion in zip(queries, written, strict=True)]

    def _prompt(self, query: str, top_k: int) -> Prompt:
        task = _TASK.format(count=top_k, **(_NOISY if self.is_noise(query) else _USEFUL))
        return begun_prompt(task, f"Query: {make_inert(query)}", "1.", chat=self._chat)

    def _draw(self, query: str) -> int:
        key = f"{self._settings.seed}/{query}".encode(errors="surrogatepass")
        return int.from_bytes(hashlib.sha256(key).digest()[:8], "little")

    @property
    def _chat(self) -> bool:
        return bool(getattr(getattr(self._engine, "tokenizer", None), "chat_template", None))

    @cached_property
    def _engine(self) -> Engine:
        from search_agents.engines.transformers import TransformersEngine  # here: it brings torch

        settings = self._settings
        return TransformersEngine.from_pretrained(self._model, dtype=settings.dtype, device=settings.device)

    def __getstate__(self) -> dict[str, Any]:
        # The model belongs to its process; another one loads it when it first searches.
        return {key: value for key, value in self.__dict__.items() if key not in ("_engine", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    def __deepcopy__(self, memo: dict[int, Any]) -> SimulatedRetriever:
        # Gymnasium deep-copies an environment's arguments each time its spec is read.
        return self


def noise_probability(step: int, steps: int, *, start: float, end: float, base: float = 4.0) -> float:
    """Probability of noise at a step of training: p_i = p_s + (b^(i/m) - 1) / (b - 1) (p_e - p_s).

    ZeroSearch, section "Curriculum-based rollout"; it grows slowly first, then faster.

    Args:
        step: i, steps that are done; beyond m it counts as m.
        steps: m, at least 1.
        start: p_s.
        end: p_e.
        base: b, above 1.

    Example:
        >>> [round(noise_probability(step, 100, start=0.0, end=0.9), 2) for step in (0, 50, 100)]
        [0.0, 0.3, 0.9]
    """
    grown: float = (base ** (min(step, steps) / steps) - 1) / (base - 1)
    return start + grown * (end - start)


def _hits(query: str, completion: Completion | None, top_k: int) -> tuple[Hit, ...]:
    """One document a line that has a number, as the first has from the prompt; each different one once."""
    if completion is None:
        return ()  # the query leaves no room for a document
    first, *others = completion.text.split("\n")
    numbered = [line for line in others if _NUMBERING.match(line.strip())]  # the rest is talk about the documents
    lines = [_NUMBERING.sub("", line.strip()).strip() for line in (first, *numbered)]
    documents = [_document(query, line) for line in dict.fromkeys(lines) if line]
    return tuple(Hit(document=document, score=1.0 / rank) for rank, document in enumerate(documents[:top_k], start=1))


def _document(query: str, line: str) -> Document:
    """A line as a document; one without a title bears the query as its title."""
    found = _TITLED.match(line)
    title, text = (found["title"].strip(), found["text"]) if found else (query, line)
    digest = hashlib.sha256(f"{title}\n{text}".encode(errors="surrogatepass")).hexdigest()[:16]
    return Document(id=f"simulated-{digest}", title=title, text=text)
