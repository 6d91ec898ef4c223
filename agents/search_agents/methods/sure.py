"""SuRe: a summary of the passages for each candidate answer, and the candidate with the best summary."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations, permutations
from string import ascii_lowercase
from typing import Literal, NamedTuple

from pydantic import Field, PositiveInt

from search_agents.config.sections import Section
from search_agents.methods.prompts import first_line, passages
from search_agents.methods.steps import Steps, generate_all, note, retrieve, side_by_side
from search_agents.methods.stepwise import StepwiseMethod
from search_env.dialects import make_inert
from search_env.metrics import normalise
from search_env.types import Prompt, Question

__all__ = ["SuRe", "parse_candidates", "parse_preference", "parse_verdict", "summary_scores"]

Preferences = Mapping[tuple[int, int], bool | None]
"""By the candidates whose summaries were shown first and second: whether the first was preferred; None is unclear."""

Variant = Literal["official", "flashrag"]


class SuReOptions(Section):
    """What the paper leaves to the user."""

    candidates: int = Field(default=2, ge=2, le=6)
    """How many candidate answers are asked for (paper: 2)."""
    variant: Variant = "official"
    """How verdicts become scores: ``official`` as in the authors' code, ``flashrag`` as in FlashRAG; see
    `summary_scores`."""
    top_k: PositiveInt | None = None
    """Passages; None takes the environment's number. The paper uses 10."""


class SuRe(StepwiseMethod):
    """Lets the model argue for each of several candidate answers and judge the arguments.

    Kim et al., ICLR 2024, "SuRe: Summarizing Retrievals using Answer Candidates for Open-domain QA of LLMs" (arXiv
    2404.13081). The model names K short candidates, summarises the passages in support of each, says of each summary
    whether it supports its candidate, and of each pair of summaries, in both orders, which one informs better. The
    candidate with the greatest of the `summary_scores` is the answer, the first of several.

    Per question: 1 search and 1 + K + K + K(K-1) calls (K = 2: 7). If the model names only one candidate, that is the
    answer after 1 call, as nothing could win against it; if it names none, the answer is empty.

    The authors' code has its rule for K = 2 only; for more, a candidate's shares of its pairs are summed. Replies are
    read by the first word that decides, where the authors match whole replies and FlashRAG substrings; FlashRAG also
    keeps candidates beyond K. The temperature is the setting's (paper: 0).
    """

    name = "sure"
    Options = SuReOptions
    options: SuReOptions

    def answer(self, question: Question) -> Steps[str]:
        """One search, candidates, summaries, verdicts."""
        count = self.options.candidates
        asked = f"Question: {make_inert(question.text)}"
        found = passages((yield from retrieve(question.text, self.options.top_k)))
        (named,) = yield from self._ask("candidates", _candidates(count), [f"{found}\n{asked}"])
        candidates = parse_candidates(named, count)
        if len(candidates) < 2:
            return candidates[0] if candidates else ""
        proposals = [f"Proposed answer: {make_inert(candidate)}" for candidate in candidates]
        choice = f"{found}\n{asked}\nCandidates: {make_inert(_lettered(candidates))}"
        written = yield from self._ask("summary", _SUMMARY, [f"{choice}\n{proposal}" for proposal in proposals])
        summaries = [make_inert(summary) for summary in written]
        pairs = list(permutations(range(len(candidates)), 2))
        supported, better = yield from side_by_side(
            [
                self._ask(
                    "validity",
                    _VALIDITY,
                    [f"{asked}\n{each}\nText: {summary}" for each, summary in zip(proposals, summaries, strict=True)],
                ),
                self._ask(
                    "ranking",
                    _RANKING,
                    [f"Text 1: {summaries[one]}\nText 2: {summaries[other]}\n{asked}" for one, other in pairs],
                ),
            ]
        )
        verdicts = [parse_verdict(reply) for reply in supported]
        preferences = {pair: parse_preference(reply) for pair, reply in zip(pairs, better, strict=True)}
        scores = summary_scores(verdicts, preferences, self.options.variant)
        scored = [f"{score:.2f} {candidate}" for score, candidate in zip(scores, candidates, strict=True)]
        yield from note("scores", "\n".join(scored))
        return candidates[scores.index(max(scores))]

    def _ask(self, purpose: str, ask: _Ask, materials: Sequence[str]) -> Steps[list[str]]:
        """Ask the same of several materials; each reply begins with what was put into the model's mouth."""
        if self.setting.chat:
            prompts = [Prompt(system=ask.task, user=f"{each}\n{ask.label}:", prefill=ask.begin) for each in materials]
            stop: tuple[str, ...] = ()
        else:
            start = f"{ask.task}\n\n{ask.examples}\n\n"
            prompts = [
                Prompt(user=f"{start}{each}\n{ask.label}:", prefill=f" {ask.begin}".rstrip()) for each in materials
            ]
            stop = ("\n",)
        completions = yield from generate_all(purpose, prompts, stop=stop, max_tokens=ask.max_tokens)
        # A server that knows no prefill begins by itself, as it was told to.
        texts = [completion.text.strip() for completion in completions]
        return [text if text.startswith(ask.begin) else f"{ask.begin} {text}" for text in texts]


class _Ask(NamedTuple):
    """One kind of call: what the model is told, and how its reply begins."""

    task: str
    label: str
    """What stands right before the reply."""
    examples: str
    """What a base model reads before the material."""
    begin: str = ""
    """The beginning of the reply, which the model only continues."""
    max_tokens: int | None = None


_WORDS = 3
"""The most words that a candidate should have (paper: 3)."""
_NAMES = ("Ada Korrin", "Jon Sael", "Mira Dost", "Olaf Brenn", "Ines Tarvo", "Leo Quast")
_PASSAGES = (
    "Passage 1, Velm Bridge: Velm Bridge crosses the Tessa. It was designed by Ada Korrin and opened in 1911.\n"
    "Passage 2, Velm Mill: Velm Mill stands beside the bridge. It was built by Jon Sael."
)
_QUESTION = "Question: Who designed Velm Bridge?"
_PROPOSED, _OTHER = (f"Proposed answer: {name}" for name in _NAMES[:2])
_FOR_PROPOSED = "Velm Bridge, which opened in 1911, was designed by Ada Korrin."
_FOR_OTHER = "Jon Sael built Velm Mill, which stands beside the bridge."


def _candidates(count: int) -> _Ask:
    return _Ask(
        task=f"Read the passages. Name {count} different answers to the question that could be right, each of at most "
        f"{_WORDS} words. Reply in this form: {_lettered(['...'] * count)}",
        label="Candidates",
        examples=f"{_PASSAGES}\n{_QUESTION}\nCandidates: {_lettered(_NAMES[:count])}",
        begin="(a)",
        max_tokens=64,
    )


def _lettered(candidates: Iterable[str]) -> str:
    return " ".join(f"({letter}) {each}" for letter, each in zip(ascii_lowercase, candidates, strict=False))


_SUMMARY = _Ask(
    task="Write two or three sentences that support the proposed answer to the question, with nothing but what the "
    "passages say. Reply with the sentences alone.",
    label="Text",
    examples=f"{_PASSAGES}\n{_QUESTION}\nCandidates: {_lettered(_NAMES[:2])}\n{_PROPOSED}\nText: {_FOR_PROPOSED}",
)
_VALIDITY = _Ask(
    task="Does the text show that the proposed answer is the right answer to the question? Reply True or False.",
    label="Reply",
    examples=f"{_QUESTION}\n{_PROPOSED}\nText: {_FOR_PROPOSED}\nReply: True\n\n"
    f"{_QUESTION}\n{_OTHER}\nText: {_FOR_OTHER}\nReply: False",
    max_tokens=16,
)
_RANKING = _Ask(
    task="Which of the two texts tells more of what is needed to answer the question? Reply Text 1 or Text 2.",
    label="Reply",
    examples=f"Text 1: {_FOR_OTHER}\nText 2: {_FOR_PROPOSED}\n{_QUESTION}\nReply: Text 2\n\n"
    f"Text 1: {_FOR_PROPOSED}\nText 2: {_FOR_OTHER}\n{_QUESTION}\nReply: Text 1",
    begin="Text",
    max_tokens=16,
)


def parse_candidates(reply: str, count: int) -> list[str]:
    """The candidates in a reply.

    Args:
        reply: ``(a) Oslo (b) Bergen``, on one line or several; numbers and dashes at the start of lines count as
            letters do. If that makes one candidate only, it is cut at commas, if all parts are short enough.
        count: The most that are returned.

    Returns:
        The first ones that differ after normalisation; none from a reply without words.
    """
    _, *marked = _MARK.split(reply)
    named = _named(marked or [reply])
    listed = _named(",".join(named).split(",")) if len(named) == 1 else []
    if listed and max(len(each.split()) for each in listed) <= _WORDS:
        named = listed
    return named[:count]


def parse_verdict(reply: str) -> bool | None:
    """Whether a summary supports its candidate, by the first word that says so or not; None if there is none."""
    found = _VERDICT.search(reply)
    return found[1] is not None if found else None


def parse_preference(reply: str) -> bool | None:
    """Whether the first of two texts is preferred, by the first that is named; None if neither is."""
    found = _TEXT.search(reply)
    return found[1] == "1" if found else None


def summary_scores(verdicts: Sequence[bool | None], preferences: Preferences, variant: Variant) -> list[float]:
    """How good the summary of each candidate is.

    Args:
        verdicts: Whether each summary supports its candidate; None is unclear.
        preferences: For every ordered pair of candidates.
        variant: ``official``: a candidate gets 1 of each pair that it wins in both orders, and 0.5 where the orders
            disagree; an unclear order leaves it to the other, and two share. If exactly one summary is valid and all
            others are not, every score is halved and the valid one gets 0.5. ``flashrag``: 1 for a valid summary, and
            of each pair that the candidate's summary leads 1 if it is preferred, 0 if it is not, 0.5 if unclear.
    """
    scores = [0.0] * len(verdicts)
    if variant == "flashrag":
        for (first, _), preferred in preferences.items():
            scores[first] += 0.5 if preferred is None else preferred
        return [score + (verdict is True) for score, verdict in zip(scores, verdicts, strict=True)]
    for one, other in combinations(range(len(verdicts)), 2):
        following = preferences[other, one]
        orders = (preferences[one, other], None if following is None else not following)
        won = [order for order in orders if order is not None]
        share = sum(won) / len(won) if won else 0.5
        scores[one] += share
        scores[other] += 1.0 - share
    if verdicts.count(True) == 1 and verdicts.count(False) == len(verdicts) - 1:
        scores = [0.5 * score + 0.5 * (verdict is True) for score, verdict in zip(scores, verdicts, strict=True)]
    return scores


_MARK = re.compile(r"(?:\b(?:and|or)\s+)?(?:\([a-z]\)|(?:^|(?<=\s))[a-z]\)|^\s*\d+[.)]|^\s*[-*])", re.MULTILINE)
_VERDICT = re.compile(r"\b(?:(true|yes)|false|no|cannot|unknown)\b", re.IGNORECASE)
_TEXT = re.compile(r"\btext\W{0,3}([12])\b", re.IGNORECASE)


def _named(pieces: Iterable[str]) -> list[str]:
    """The first line of each piece, bare of the signs around it.

    Left out are what says nothing, what says the same again, and what announces a list (``Candidates:``).
    """
    lines = [first_line(piece).strip(" \t.,;\"'`*") for piece in pieces]
    distinct: dict[str, str] = {}
    for line in lines:
        if normalise(line) and not line.endswith(":"):
            distinct.setdefault(normalise(line), line)
    return list(distinct.values())
