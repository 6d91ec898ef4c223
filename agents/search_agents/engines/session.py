"""Rows that a transformers model generates side by side, each at its own length and in its own time.

What a row has in the key-value cache stays there from turn to turn: a turn computes
its new tokens only, and rows that begin alike compute their beginning once. The last
sampled token of a segment is not in the cache yet; it is computed together with the
observation that follows it.

Every step samples a token of every row that is sampling. A row that begins joins the
others at the next step, and one whose segment has ended leaves them; the first step of a
row also computes what it has to read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from search_agents.engines.attention import generating
from search_agents.engines.base import SampledSegment, SamplingParams
from search_agents.engines.codec import TextCodec
from search_agents.engines.draft import SegmentDraft
from search_agents.engines.kv_cache import RaggedKVCache
from search_agents.engines.prefixes import Kept, PrefixCache, shared_beginnings
from search_agents.engines.sampling import draw_tokens, row_uniforms
from search_agents.engines.slots import Slots

__all__ = ["TransformersSession"]

_Ints = npt.NDArray[np.int64]

_FEW = 31  # tokens: a pass of its own costs more than computing so many in vain


class TransformersSession:
    """See `AsynchronousSession`; opened by `TransformersEngine.open`.

    Args:
        model: A causal language model.
        codec: Finds the end of segments.
        prompts: Token ids of each row.
        seeds: One a row.
        max_tokens: The most tokens a row may hold.
        prefill_tokens: The most tokens of one forward pass over prompts and observations, padding included.
        dtype: What the model computes in.
        prefixes: Has beginnings of rows from texts that were read before.
    """

    def __init__(
        self,
        model: Any,
        codec: TextCodec,
        prompts: Sequence[Sequence[int]],
        *,
        seeds: Sequence[int],
        max_tokens: int,
        prefill_tokens: int,
        dtype: torch.dtype,
        prefixes: PrefixCache | None = None,
    ) -> None:
        rows = len(prompts)
        self._model = model
        self._codec = codec
        self._seeds = seeds
        self._max_tokens = max_tokens
        self._prefill_tokens = prefill_tokens
        self._dtype = dtype
        self._prefixes = prefixes
        self._vocab_size: int = model.get_input_embeddings().weight.shape[0]
        self._cache = RaggedKVCache(max_tokens, dtype)
        self._slots = Slots(self._cache)
        self._cached: _Ints = np.zeros(rows, dtype=np.int64)  # tokens of each row that are in the cache
        self._pending = [list(prompt) for prompt in prompts]  # tokens of each row that are not
        self._prompts = [list(prompt) for prompt in prompts]
        self._uniforms: dict[int, npt.NDArray[np.float64]] = {}  # what decides the tokens of each row that has a slot
        self._drawn: _Ints = np.zeros(rows, dtype=np.int64)  # tokens sampled in each row so far
        self._drafts: dict[int, tuple[SegmentDraft, float]] = {}  # and the temperature, of each row that is sampling

    def keep(self, prefixes: PrefixCache, texts: Sequence[Sequence[int]]) -> None:
        """Keep what is computed of each row for texts that begin alike.

        Args:
            prefixes: Where to keep it.
            texts: All token ids of each row.
        """
        for row in self._slots:
            length = int(self._cached[row])
            kept = self._cache.read(int(self._slots.of([row])[0]), length)
            prefixes.add(Kept(tuple(texts[row][:length]), kept))

    def room(self, row: int) -> int:
        """Number of tokens that row `row` can still take."""
        return self._max_tokens - int(self._cached[row]) - len(self._pending[row])

    def extend(self, rows: Sequence[int], token_ids: Sequence[Sequence[int]]) -> None:
        """Append observations; see `GenerationSession.extend`."""
        for row, ids in zip(rows, token_ids, strict=True):
            if len(ids) > self.room(row):
                raise ValueError(f"row {row} has room for {self.room(row)} tokens and was given {len(ids)}")
            self._pending[row].extend(ids)

    def sample(self, rows: Sequence[int], params: SamplingParams) -> list[SampledSegment]:
        """Sample one segment for each of the given rows; see `GenerationSession.sample`."""
        segments: dict[int, SampledSegment] = {}
        try:
            for row in rows:
                self.begin(row, params)
            while len(segments) < len(rows):
                segments.update(self.step())
        finally:
            self._drafts.clear()
        return [segments[row] for row in rows]

    def begin(self, row: int, params: SamplingParams) -> None:
        """Begin to sample a segment of a row; see `AsynchronousSession.begin`."""
        limit = min(params.max_tokens, self.room(row))
        if row in self._drafts or limit < 1:
            raise ValueError(f"row {row} is sampling already, or has no room for a token")
        self._cache.lengthen(self._max_tokens - self.room(row) + limit)
        draft = SegmentDraft(self._codec, params.stop, limit, self._vocab_size)
        self._drafts[row] = (draft, params.temperature)

    def step(self) -> list[tuple[int, SampledSegment]]:
        """Sample a token of every row that is sampling; see `AsynchronousSession.step`."""
        going_on = [row for row, (draft, _) in self._drafts.items() if draft.token_ids]
        beginning = [row for row, (draft, _) in self._drafts.items() if not draft.token_ids]
        with generating(self._model, self._dtype):
            logits = [self._decode(going_on)] if going_on else []
            logits += [self._prefill(beginning)] if beginning else []
            tokens, logprobs = self._draw(going_on + beginning, torch.cat(logits))
        ended = []
        for row, token, logprob in zip(going_on + beginning, tokens, logprobs, strict=True):
            draft, _ = self._drafts[row]
            self._pending[row] = [token]
            self._drawn[row] += 1
            if draft.add(token, logprob):
                del self._drafts[row]
                ended.append((row, draft.segment()))
        return ended

    def release(self, row: int) -> None:
        """Give up the row's place; see `AsynchronousSession.release`."""
        self._slots.release(row)
        self._uniforms.pop(row, None)

    def close(self) -> None:
        """Give up the segments that are not finished, and the cache; see `AsynchronousSession.close`."""
        self._drafts.clear()
        self._uniforms.clear()
        self._cache = RaggedKVCache(self._max_tokens, self._dtype)
        self._slots = Slots(self._cache)

    def next_logprobs(self, rows: Sequence[int]) -> npt.NDArray[np.float32]:
        """The distribution of the next token; see `GenerationSession.next_logprobs`."""
        if len(set(rows)) != len(rows) or not all(self._pending[row] for row in rows):
            raise ValueError(f"rows to ask must be distinct and extended since they were asked, got {list(rows)}")
        with generating(self._model, self._dtype):
            return self._prefill(rows).float().log_softmax(-1).cpu().numpy()

    def _draw(self, rows: Sequence[int], logits: torch.Tensor) -> tuple[list[int], list[float]]:
        """A token and its log-probability for each row, whose logits are [rows, vocab_size]."""
        temperatures = [self._drafts[row][1] for row in rows]
        drawn = [self._uniforms[row][self._drawn[row]] for row in rows]
        uniforms = torch.tensor(drawn, dtype=torch.float64, device=logits.device)
        if len(set(temperatures)) == 1:
            tokens, logprobs = draw_tokens(logits, temperatures[0], uniforms)
            return tokens.tolist(), logprobs.tolist()
        pairs = [draw_tokens(logits[[i]], each, uniforms[[i]]) for i, each in enumerate(temperatures)]
        return [int(token) for token, _ in pairs], [float(logprob) for _, logprob in pairs]

    def _decode(self, rows: Sequence[int]) -> torch.Tensor:
        """Compute the last token of each row, the only one that is pending.

        Returns:
            Logits after it, [rows, vocab_size].
        """
        width = self._slots.gather(rows, self._cached)
        slots = self._slots.of(rows)
        ids, positions = np.zeros((width, 1), dtype=np.int64), np.full((width, 1), -1)
        ids[slots, 0] = [self._pending[row][0] for row in rows]
        positions[slots, 0] = self._cached[rows]
        logits = self._forward(np.arange(width), ids, positions)
        self._cached[rows] += 1
        return logits if np.array_equal(slots, np.arange(width)) else logits[torch.from_numpy(slots)]

    def _prefill(self, rows: Sequence[int]) -> torch.Tensor:
        """Compute what is pending.

        Returns:
            Logits after the last token of each row, [rows, vocab_size].
        """
        self._give_slots(rows)
        order: list[int] = []
        logits = []
        for wave in self._waves(rows):
            self._share(wave)
            for group in self._alike(wave):
                logits.append(self._prefill_group(group))
                order += group
        places = {row: place for place, row in enumerate(order)}
        return torch.cat(logits)[[places[row] for row in rows]]

    def _alike(self, rows: Iterable[int]) -> Iterator[list[int]]:
        """Groups of rows that have about as much to compute, and about as much behind it: little then is padding."""
        sizes = {row: (len(self._pending[row]), int(self._cached[row]) + len(self._pending[row])) for row in rows}
        by_kind: dict[tuple[int, int], list[int]] = defaultdict(list)
        for row, (new, end) in sizes.items():
            by_kind[max(new, _FEW).bit_length(), max(end, _FEW).bit_length()].append(row)
        for kind in sorted(by_kind, reverse=True):
            group = sorted(by_kind[kind], key=lambda row: -sizes[row][0])
            while group:
                count = max(1, self._prefill_tokens // sizes[group[0]][0])
                yield group[:count]
                group = group[count:]

    def _give_slots(self, rows: Sequence[int]) -> None:
        """Let rows that were not computed before have a place, and what was read before of texts that begin alike."""
        fresh = [row for row in rows if row not in self._slots]
        self._slots.take(fresh)
        for row, slot in zip(fresh, self._slots.of(fresh).tolist(), strict=True):
            self._uniforms[row] = row_uniforms([self._seeds[row]], self._max_tokens)[0]
            kept, length = self._prefixes.longest(self._pending[row]) if self._prefixes else (None, 0)
            if kept is not None:
                self._cache.write(slot, kept.blocks, length)
                self._cached[row] = length
                self._pending[row] = self._pending[row][length:]

    def _waves(self, rows: Sequence[int]) -> list[dict[int, tuple[int, int]]]:
        """Rows in the order in which to compute them; see `shared_beginnings`.

        Returns:
            The rows of each wave, and for each of them the row that has its beginning and the number of tokens of it.
        """
        begun = {row: (0, row, int(self._cached[row])) for row in rows}
        fresh = [row for row in rows if not self._has_prompt(row)]
        if fresh:
            texts = [row for row in self._slots if self._has_prompt(row)] + fresh
            known = [min(int(self._cached[row]), len(self._prompts[row])) for row in texts]
            plan = shared_beginnings([self._prompts[row] for row in texts], known)[-len(fresh) :]
            begun |= {
                row: (wave, texts[source], length) for row, (wave, source, length) in zip(fresh, plan, strict=True)
            }
        waves: list[dict[int, tuple[int, int]]] = [{} for _ in range(1 + max(wave for wave, _, _ in begun.values()))]
        for row, (wave, source, length) in begun.items():
            waves[wave][row] = (source, length)
        return waves

    def _has_prompt(self, row: int) -> bool:
        """Whether all of the row's prompt is computed."""
        return bool(self._cached[row] >= len(self._prompts[row]))

    def _share(self, wave: dict[int, tuple[int, int]]) -> None:
        """Copy to the rows of a wave what other rows have of them; see `_waves`."""
        copies = [(source, row, length) for row, (source, length) in wave.items() if source != row]
        if not copies:
            return
        sources, targets, lengths = (list(column) for column in zip(*copies, strict=True))
        self._cache.move(self._slots.of(sources).tolist(), self._slots.of(targets).tolist(), max(lengths))
        for row, length in zip(targets, lengths, strict=True):
            self._pending[row] = self._pending[row][length - self._cached[row] :]
            self._cached[row] = length

    def _prefill_group(self, rows: Sequence[int]) -> torch.Tensor:
        counts = np.asarray([len(self._pending[row]) for row in rows])
        width = int(counts.max())
        # Padded on the left: the last column then is the last token of every row.
        columns = np.arange(width) - (width - counts)[:, None]
        ids = np.zeros((len(rows), width), dtype=np.int64)
        ids[columns >= 0] = np.concatenate([self._pending[row] for row in rows])
        positions = np.where(columns >= 0, self._cached[rows][:, None] + columns, -1)
        slots = self._slots.of(rows)
        for start in range(0, width, self._prefill_tokens):
            piece = slice(start, start + self._prefill_tokens)
            logits = self._forward(slots, ids[:, piece], positions[:, piece])
        for row, count in zip(rows, counts, strict=True):
            self._cached[row] += count
            self._pending[row] = []
        return logits

    def _forward(self, slots: _Ints, ids: _Ints, positions: _Ints) -> torch.Tensor:
        """Run the model over new tokens.

        Args:
            slots: Of the rows, [rows].
            ids: [rows, new_tokens].
            positions: Of each token in its row, -1 for padding, [rows, new_tokens].

        Returns:
            Logits of the last column, [rows, vocab_size].
        """
        device = self._model.device
        crop = int(positions.max()) + 1
        self._cache.aim(slots, torch.from_numpy(positions).to(device), crop)
        # Padding attends to position 0: with nothing to attend to it would compute NaN.
        position_ids = torch.from_numpy(positions.clip(min=0)).to(device)
        hidden = torch.arange(crop, device=device) > position_ids[:, None, :, None]
        mask = torch.zeros(hidden.shape, dtype=self._dtype, device=device)
        mask.masked_fill_(hidden, torch.finfo(self._dtype).min)
        logits: torch.Tensor = self._model(
            input_ids=torch.from_numpy(ids).to(device),
            attention_mask=mask,
            position_ids=position_ids,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits
        return logits[:, -1]
