"""Selective-Context: what a language model finds easy to predict is left out."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from importlib import import_module
from itertools import pairwise
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from search_agents.config.sections import Section
from search_agents.engines.base import Capability, ScoredText
from search_agents.methods.base import Setting
from search_agents.methods.compression import document_text, sentences, shown
from search_agents.methods.standard_rag import READ_AND_ANSWER
from search_agents.methods.steps import Steps, note, retrieve, score_all
from search_agents.methods.stepwise import StepwiseMethod
from search_env.errors import MissingDependencyError
from search_env.types import Question

__all__ = ["SelectiveContext", "SelectiveContextOptions", "dropped", "regex_phrases", "unit_information"]

Cut = Callable[[ScoredText], list[str]]
"""Cuts a sentence into units; joined they are the sentence."""

_ARTICLE = r"(?:the|a|an|his|her|its|their|this|that)\s+"
_CAPITALISED = r"(?:[^\W\d_a-z]\.|[^\W\d_a-z][\w'’-]*(?:\.[\w'’-]+)*)"
_NAME = rf"{_CAPITALISED}(?:\s+(?:(?:of|the|de|von|van|and)\s+)?{_CAPITALISED})*"
_REGEX_PHRASE = re.compile(rf"\s*(?:(?i:{_ARTICLE}){_NAME}|(?i:{_ARTICLE})\w+|{_NAME}|[\w'’-]+|[^\w\s]+|$)")


class SelectiveContextOptions(Section):
    """What the paper leaves open, with the defaults of the authors' code."""

    ratio: Annotated[float, Field(ge=0, lt=1)] = 0.35
    """Share of the units to drop; FlashRAG, with which the table's row was run, takes 0.5."""
    unit: Literal["phrase", "regex-phrase", "sentence", "token"] = "phrase"
    """What is kept or dropped as a whole. phrase: the noun chunks of spaCy and the tokens between them, as in the
    paper. regex-phrase: a stand-in by capitals and articles that needs no package, and is not the paper's unit."""
    spacy_model: str = "en_core_web_sm"
    """Pipeline of spaCy with a parser, for phrases."""


class SelectiveContext(StepwiseMethod):
    """Li et al. 2023 (arXiv:2310.06201): drops the units with the least self-information, whatever is asked.

    The self-information of a token is its loss given what stands before it in its sentence, that of a unit the mean
    of its tokens'. Of the units of all documents, those below the percentile of the ratio are dropped.

    One search; of the model one text and one score a sentence.

    The authors weigh with GPT-2; here the model that answers does it, so that a comparison has one model.
    """

    name = "selective-context"
    needs = frozenset({Capability.GENERATE, Capability.SCORE})
    Options = SelectiveContextOptions
    options: SelectiveContextOptions

    def __init__(self, setting: Setting, options: SelectiveContextOptions | None = None) -> None:
        super().__init__(setting, options)
        self._cut = _cutter(self.options)

    def answer(self, question: Question) -> Steps[str]:
        """Search, compress, answer."""
        hits = yield from retrieve(question.text)
        texts = yield from self._compress([document_text(hit.document) for hit in hits])
        return (yield from self.short_answer(question, f"{READ_AND_ANSWER}\n\n{shown(texts)}\n"))

    def _compress(self, documents: Sequence[str]) -> Steps[list[str]]:
        cut = [
            (number, f" {sentence}" if place else sentence)
            for number, document in enumerate(documents)
            for place, sentence in enumerate(sentences(document))
        ]
        if not cut:
            return []
        scores = yield from score_all("self-information", [("", sentence) for _, sentence in cut])
        units: list[tuple[int, str]] = []
        information: list[float] = []
        for (number, _), score in zip(cut, scores, strict=True):
            parts = self._cut(score)
            units += [(number, part) for part in parts]
            information += unit_information(score, parts)
        drop = dropped(information, self.options.ratio)
        texts = [""] * len(documents)
        for (number, unit), gone in zip(units, drop, strict=True):
            texts[number] += "" if gone else unit
        told = f"{len(units) - sum(drop)} of {len(units)} units ({self.options.unit})"
        yield from note("compression", f"{told}\n{shown(texts)}")
        return texts


def unit_information(score: ScoredText, units: Sequence[str]) -> list[float]:
    """Self-information of the units of a text, in nats: the mean over the tokens that end in each.

    Args:
        score: The text, scored.
        units: Its parts; joined they are the text. One in which no token ends has none: NaN.
    """
    ends = np.cumsum([len(unit) for unit in units])
    found: list[list[float]] = [[] for _ in units]
    start = 0
    for token, logprob in zip(score.tokens, score.logprobs, strict=True):
        start += len(token)
        # An empty piece is the rest of the character before it.
        found[int(np.searchsorted(ends, max(start, 1), side="left"))].append(-logprob)
    return [float(np.mean(values)) if values else float("nan") for values in found]


def dropped(information: Sequence[float], ratio: float) -> list[bool]:
    """Marks the units whose self-information lies below the percentile of a ratio; one that has none stays."""
    threshold = float(np.nanpercentile(information, 100 * ratio))
    return [value < threshold for value in information]


def regex_phrases(text: str) -> list[str]:
    """Cut a text into names, words with an article before them, other words, and punctuation; joined they are the text.

    Example:
        >>> regex_phrases("The director Hans von Herwig was born in the city.")
        ['The director', ' Hans von Herwig', ' was', ' born', ' in', ' the city', '.']
    """
    return [phrase for phrase in _REGEX_PHRASE.findall(text) if phrase]


def _cutter(options: SelectiveContextOptions) -> Cut:
    if options.unit == "phrase":
        return partial(_noun_chunks, _spacy_pipeline(options.spacy_model))
    return {"regex-phrase": _by_regex, "sentence": _whole, "token": _tokens}[options.unit]


def _by_regex(score: ScoredText) -> list[str]:
    return regex_phrases("".join(score.tokens))


def _whole(score: ScoredText) -> list[str]:
    return ["".join(score.tokens)]


def _tokens(score: ScoredText) -> list[str]:
    return list(score.tokens)


def _noun_chunks(pipeline: Any, score: ScoredText) -> list[str]:
    """The tokens of a pipeline that merges noun chunks, each with the space before it."""
    text = "".join(score.tokens)
    ends = [token.idx + len(token.text) for token in pipeline(text) if not token.is_space]
    ends = [0, *ends[:-1], len(text)]
    return [text[start:end] for start, end in pairwise(ends)]


@lru_cache(maxsize=1)
def _spacy_pipeline(model: str) -> Any:
    stand_in = "Or take another unit: {name: selective-context, unit: sentence}, or unit: token or regex-phrase."
    try:
        spacy: Any = import_module("spacy")
    except ImportError as error:
        raise MissingDependencyError(
            "the phrases of selective-context are noun chunks of spaCy, which is not installed. "
            f"Type: pip install spacy && python -m spacy download {model}. {stand_in}"
        ) from error
    try:
        pipeline = spacy.load(model)
    except OSError as error:
        raise MissingDependencyError(
            f"the phrases of selective-context need spaCy's pipeline {model!r}, which is not installed. "
            f"Type: python -m spacy download {model}. {stand_in}"
        ) from error
    pipeline.add_pipe("merge_noun_chunks")
    return pipeline
