"""The parts of the reward that R1-Searcher's authors coded, which differs from the one in their paper.

Their rules count tags and words in the whole text, documents included, so a passage with
the word "assistant" in it costs a right answer 2 points. Here the same arithmetic sees the
model's own words only. The environment adds exactly one well-formed block a search, hence
their "all seven counts are equal" reads: as many query tags of either kind as searches
run, and no document tag. A search that found nothing is not held against the model.

The tags are R1-Searcher's, in both spellings; under another dialect these rules are never
met. `search_env.rewards` weighs the parts: see its presets ``code-…``.
"""

from __future__ import annotations

import re

from search_env.metrics import cover_bag
from search_env.types import Transcript

__all__ = ["llama_answer", "llama_format", "llama_penalty", "llama_retrieval", "qwen_penalty"]

_QUERY_OPEN = re.compile(r"<\|?begin_of_query\|?>")
_QUERY_CLOSE = re.compile(r"<\|?end_of_query\|?>")
_DOCUMENT_TAG = re.compile(r"<\|?(?:begin|end)_of_documents\|?>")
_ASSISTANT = re.compile("[Aa]ssistant")
_TAG_NAME = re.compile("begin_of_query|begin_of_documents")
_CJK = re.compile("[\u4e00-\u9fff]")
_LONGEST_ANSWER = 10  # words


def qwen_penalty(transcript: Transcript) -> float:
    """-1 if the authors' rules for the Qwen base model are broken, else 0; reads the model's own words only.

    The rules: query tags match the searches; the word "assistant" nowhere; ``<think>`` never and ``</think>`` once;
    ``<answer>`` and ``</answer>`` once; the answer names no query or document tag and has at most 10 words; no
    Chinese character.
    """
    own, answer = _own_words(transcript), transcript.answer or ""
    broken = (
        not _searches_paired(transcript, own)
        or not _blocks_once(own)
        or _ASSISTANT.search(own)
        or _TAG_NAME.search(answer)
        or len(answer.split()) > _LONGEST_ANSWER
        or _CJK.search(own)
    )
    return -1.0 if broken else 0.0


def llama_penalty(transcript: Transcript) -> float:
    """-1 if the authors' rules for stage 2 of the Llama model are broken, else 0; reads the model's own words only.

    The rules: query tags match the searches; ``<think>`` never, ``</think>``, ``<answer>`` and ``</answer>`` once; no
    Chinese character.
    """
    own = _own_words(transcript)
    broken = not _searches_paired(transcript, own) or not _blocks_once(own) or _CJK.search(own)
    return -1.0 if broken else 0.0


def llama_answer(transcript: Transcript) -> float:
    """1 if the answer holds every word of a gold answer, else -1, also without an answer."""
    answer = transcript.answer
    return 1.0 if answer is not None and cover_bag(answer, transcript.question.answers) else -1.0


def llama_retrieval(transcript: Transcript) -> float:
    """1 if at least one search was run and the query tags match the searches, else 0; own words only."""
    return float(bool(transcript.queries) and _searches_paired(transcript, _own_words(transcript)))


def llama_format(transcript: Transcript) -> float:
    """1 if ``<think>`` never occurs and ``</think>``, ``<answer>``, ``</answer>`` once each, else 0; own words only."""
    return float(_blocks_once(_own_words(transcript)))


def _own_words(transcript: Transcript) -> str:
    return "\n".join(transcript.segments)


def _searches_paired(transcript: Transcript, own: str) -> bool:
    opened, closed = len(_QUERY_OPEN.findall(own)), len(_QUERY_CLOSE.findall(own))
    return opened == closed == len(transcript.queries) and not _DOCUMENT_TAG.search(own)


def _blocks_once(own: str) -> bool:
    closings = all(own.count(tag) == 1 for tag in ("</think>", "<answer>", "</answer>"))
    return closings and "<think>" not in own
