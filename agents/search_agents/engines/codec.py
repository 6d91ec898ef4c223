"""Between text and token ids: prompts, observations, and where a segment ends.

Observations are encoded so that no special token can come out of them, whatever a
document holds. A stop string is looked for in the decoded text, because tokens do
not respect its borders: one token may hold the end of a tag and what follows it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from search_agents.engines.base import FinishReason, NoChatTemplate
from search_env.errors import ModelError
from search_env.types import Prompt

__all__ = ["SegmentEnd", "TextCodec"]


class SegmentEnd(NamedTuple):
    """A finished segment: why, and its text."""

    finish: FinishReason
    text: str


class TextCodec:
    """Encodes for one tokenizer and finds the end of segments.

    Args:
        tokenizer: A Hugging Face tokenizer.
        eos_ids: Ids that end a segment.
    """

    def __init__(self, tokenizer: Any, eos_ids: Iterable[int]) -> None:
        self.tokenizer = tokenizer
        self.eos_ids = frozenset(eos_ids)
        self._anchor = tokenizer.encode("a", add_special_tokens=False)
        self._anchor_text = self._decode(self._anchor)
        self.may_end = lru_cache(maxsize=8)(self._may_end)

    def encode_prompt(self, prompt: Prompt, *, chat: bool) -> list[int]:
        """Encode the opening of an episode; see `TokenEngine.encode_prompt`."""
        if not chat:
            text, start = prompt.text, self._start_ids()
        elif getattr(self.tokenizer, "chat_template", None):
            text, start = self._chat_text(prompt) + prompt.prefill, []
        else:
            raise NoChatTemplate(
                "the prompt style 'instruct' needs a chat template and this model's tokenizer has none. "
                "Use the style 'base' (plain instructions) or 'bare' (a model trained on the protocol)."
            )
        ids: list[int] = start + self.tokenizer.encode(text, add_special_tokens=False)
        return ids

    def encode_observation(self, text: str) -> list[int]:
        """Encode text of the environment; what looks like a special token is spelled out."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        return ids

    def encode_context(self, text: str) -> list[int]:
        """Encode what stands before a text that is scored; never empty, for the first token needs one before it.

        Raises:
            ModelError: If the text is empty, and the model has no token that begins or ends one.
        """
        start = self._start_ids()
        if not text and not start:
            start = sorted(self.eos_ids)[:1]
        ids = [*start, *self.encode_observation(text)]
        if not ids:
            raise ModelError(
                "cannot score a text after an empty context: this model's tokenizer has neither a token that begins a "
                "text nor one that ends it. Give a context."
            )
        return ids

    def encode_pieces(self, text: str) -> tuple[list[int], tuple[str, ...]]:
        """Encode as `encode_observation` does, and cut the text where its tokens end.

        Returns:
            The ids, and one piece for each. Joined the pieces are the text, whatever the tokenizer normalises; of a
            character that is spread over several tokens the first has all.

        Raises:
            ModelError: If the tokenizer does not tell where its tokens lie.
        """
        if not self.tokenizer.is_fast:
            raise ModelError(
                f"scoring needs to know where tokens lie in a text, and {type(self.tokenizer).__name__} does not tell. "
                "Use a model with a tokenizer.json."
            )
        encoded = self.tokenizer(
            text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True, verbose=False
        )
        ids: list[int] = encoded["input_ids"]
        ends = [0, *(end for _, end in encoded["offset_mapping"][:-1]), len(text)]
        return ids, tuple(text[start:end] for start, end in pairwise(ends))[: len(ids)]

    def decode(self, token_ids: Sequence[int]) -> str:
        """Decode tokens that continue a text.

        The decoders of some tokenizers drop a leading space, so the ids are decoded after a fixed beginning.
        """
        return self._decode([*self._anchor, *token_ids])[len(self._anchor_text) :]

    def segment_end(self, token_ids: Sequence[int], stop: tuple[str, ...]) -> SegmentEnd | None:
        """Tell whether the last token ends the segment.

        Args:
            token_ids: The segment so far, at least one id; no earlier token ended it.
            stop: The stop strings.

        Returns:
            The end, or None if the segment goes on.
        """
        if token_ids[-1] in self.eos_ids:
            return SegmentEnd(FinishReason.EOS, self.decode(token_ids[:-1]))
        if not stop or not _first_end(self._tail(token_ids, max(map(len, stop))), stop):
            return None
        text = self.decode(token_ids)
        end = _first_end(text, stop)
        return SegmentEnd(FinishReason.STOP, text[:end]) if end else None

    def _may_end(self, stop: tuple[str, ...], vocab_size: int) -> npt.NDArray[np.bool_]:
        """Mark the ids that can end a segment: a cheap test before `segment_end`. Cached as `may_end`.

        Returns:
            Bool [vocab_size]: the end-of-sequence ids, and the tokens that hold the last character of a stop string.
        """
        last_characters = {string[-1] for string in stop}
        if not all(character.isascii() for character in last_characters):
            return np.ones(vocab_size, dtype=np.bool_)  # such a character may be spread over several tokens
        marks = np.zeros(vocab_size, dtype=np.bool_)
        known = min(vocab_size, len(self.tokenizer))
        for token_id in range(known if stop else 0):
            marks[token_id] = not last_characters.isdisjoint(self._decode([token_id]))
        marks[[token_id for token_id in self.eos_ids if token_id < vocab_size]] = True
        return marks

    def _tail(self, token_ids: Sequence[int], characters: int) -> str:
        """Decode the fewest last tokens, roughly, that hold the last token and `characters` before it."""
        # A character that the tail cuts in two decodes to as many as 3 replacement characters.
        needed = characters + len(self._decode(token_ids[-1:])) + 3
        count = characters + 1
        while True:
            text = self._decode(token_ids[-count:])
            if len(text) >= needed or count >= len(token_ids):
                return text
            count *= 2

    def _decode(self, token_ids: Sequence[int]) -> str:
        text: str = self.tokenizer.decode(token_ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text

    def _start_ids(self) -> list[int]:
        """The beginning-of-sequence id, if this tokenizer starts a text with one."""
        bos = self.tokenizer.bos_token_id
        return [bos] if bos is not None and self.tokenizer.encode("")[:1] == [bos] else []

    def _chat_text(self, prompt: Prompt) -> str:
        messages = [{"role": "system", "content": prompt.system}] if prompt.system else []
        messages.append({"role": "user", "content": prompt.user})
        text: str = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return text


def _first_end(text: str, stop: tuple[str, ...]) -> int:
    """Index right after the stop string that is complete first, or 0."""
    ends = [index + len(string) for string in stop if (index := text.find(string)) >= 0]
    return min(ends, default=0)
