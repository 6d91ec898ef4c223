"""Rows that a transformers model generates side by side, each at its own length.

What a row has in the key-value cache stays there from turn to turn: a turn computes
its new tokens only, and rows that begin alike compute their beginning once. The last
sampled token of a segment is not in the cache yet; it is computed together with the
observation that follows it.
"""

from __future__ import annotations

from collections.abc import Sequence
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

__all__ = ["TransformersSession"]

_Ints = npt.NDArray[np.int64]


class TransformersSession:
    """See `GenerationSession`; opened by `TransformersEngine.open`.

    Args:
        model: A causal language model.
        codec: Finds the end of segments.
        prompts: Token ids of each row.
        seeds: One a row.
        max_tokens: The most tokens a row may hold.
        prefill_tokens: The most tokens of one forward pass over prompts and observations, padding included.
        dtype: What the model computes in.
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
    ) -> None:
        rows = len(prompts)
        self._model = model
        self._codec = codec
        self._max_tokens = max_tokens
        self._prefill_tokens = prefill_tokens
        self._dtype = dtype
        self._cache = RaggedKVCache(rows, max_tokens, dtype)
        self._cached: _Ints = np.zeros(rows, dtype=np.int64)  # tokens of each row that are in the cache
        self._pending = [list(prompt) for prompt in prompts]  # tokens of each row that are not
        self._unread = {row: list(prompt) for row, prompt in enumerate(prompts)}  # of which nothing was computed here
        self._row_in_slot: _Ints = np.arange(rows)
        self._uniforms = row_uniforms(seeds, max_tokens)
        self._drawn: _Ints = np.zeros(rows, dtype=np.int64)  # tokens sampled in each row so far

    def recall(self, prefixes: PrefixCache) -> None:
        """Take the beginnings of rows from texts that were read before; not after anything was computed here."""
        for slot, (row, prompt) in enumerate(self._unread.items()):
            kept, length = prefixes.longest(prompt)
            if kept is not None:
                self._cache.write(slot, kept.blocks, length)
                self._cached[row] = length
                self._pending[row] = prompt[length:]

    def keep(self, prefixes: PrefixCache, texts: Sequence[Sequence[int]]) -> None:
        """Keep what is computed of each row for texts that begin alike.

        Args:
            prefixes: Where to keep it.
            texts: All token ids of each row.
        """
        for slot, row in enumerate(self._row_in_slot.tolist()):
            length = int(self._cached[row])
            prefixes.add(Kept(tuple(texts[row][:length]), self._cache.read(slot, length)))

    def room(self, row: int) -> int:
        """Number of tokens that row `row` can still take."""
        return self._max_tokens - int(self._cached[row]) - len(self._pending[row])

    def extend(self, rows: Sequence[int], token_ids: Sequence[Sequence[int]]) -> None:
        """Append observations; see `GenerationSession.extend`."""
        for row, ids in zip(rows, token_ids, strict=True):
            if len(ids) > self.room(row):
                raise ValueError(f"row {row} has room for {self.room(row)} tokens and was given {len(ids)}")
            self._pending[row].extend(ids)
            self._unread.pop(row, None)

    def sample(self, rows: Sequence[int], params: SamplingParams) -> list[SampledSegment]:
        """Sample one segment for each of the given rows; see `GenerationSession.sample`."""
        if not rows:
            return []
        limits = np.asarray([min(params.max_tokens, self.room(row)) for row in rows])
        if len(set(rows)) != len(rows) or limits.min() < 1:
            raise ValueError(f"rows to sample must be distinct and have room for a token, got {list(rows)}")
        draft = SegmentDraft(self._codec, params.stop, limits)
        with generating(self._model, self._dtype):
            logits = self._prefill(rows)
            self._decode(logits, np.asarray(rows), draft, params)
        segments = draft.segments()
        for row, segment in zip(rows, segments, strict=True):
            self._pending[row] = segment.token_ids[-1:]
            self._drawn[row] += len(segment.token_ids)
        return segments

    def next_logprobs(self, rows: Sequence[int]) -> npt.NDArray[np.float32]:
        """The distribution of the next token; see `GenerationSession.next_logprobs`."""
        if len(set(rows)) != len(rows) or not all(self._pending[row] for row in rows):
            raise ValueError(f"rows to ask must be distinct and extended since they were asked, got {list(rows)}")
        with generating(self._model, self._dtype):
            logits = self._prefill(rows).float().log_softmax(-1)
        slots = np.argsort(self._row_in_slot)[np.asarray(rows)]
        return logits[torch.from_numpy(slots).to(logits.device)].cpu().numpy()

    def _prefill(self, rows: Sequence[int]) -> torch.Tensor:
        """Compute what is pending.

        Returns:
            Logits after the last token of each row, [rows, vocab_size], in the order of slots.
        """
        waves = self._waves(rows)
        order = np.asarray([row for wave in waves for row in wave])
        self._arrange(order)
        logits, first = [], 0
        for wave in waves:
            self._share(wave)
            last = first + len(wave)
            while first < last:
                count = min(last - first, max(1, self._prefill_tokens // len(self._pending[order[first]])))
                logits.append(self._prefill_group(first, order[first : first + count]))
                first += count
        return torch.cat(logits)

    def _waves(self, rows: Sequence[int]) -> list[dict[int, tuple[int, int]]]:
        """Rows in the order in which to compute them; see `shared_beginnings`.

        Returns:
            The rows of each wave, and for each of them the row that has its beginning and the number of tokens of it.
            The rows with the most to compute come first, so that rows of one pass need little padding.
        """
        fresh = [row for row in rows if row in self._unread]
        known = [int(self._cached[row]) for row in fresh]
        plan = shared_beginnings([self._unread.pop(row) for row in fresh], known)
        begun = {row: (0, row, int(self._cached[row])) for row in rows}
        begun |= {row: (wave, fresh[source], length) for row, (wave, source, length) in zip(fresh, plan, strict=True)}
        waves: list[dict[int, tuple[int, int]]] = [{} for _ in range(1 + max(wave for wave, _, _ in begun.values()))]
        for row in sorted(rows, key=lambda row: begun[row][2] - self._cached[row] - len(self._pending[row])):
            wave, source, length = begun[row]
            waves[wave][row] = (source, length)
        return waves

    def _share(self, wave: dict[int, tuple[int, int]]) -> None:
        """Copy to the rows of a wave what other rows have of them; see `_waves`."""
        copies = [(source, row, length) for row, (source, length) in wave.items() if source != row]
        if not copies:
            return
        slot_of_row = torch.from_numpy(np.argsort(self._row_in_slot))
        sources, targets, lengths = (list(column) for column in zip(*copies, strict=True))
        device = self._model.device
        self._cache.share(slot_of_row[sources].to(device), slot_of_row[targets].to(device), max(lengths))
        for row, length in zip(targets, lengths, strict=True):
            self._pending[row] = self._pending[row][length - self._cached[row] :]
            self._cached[row] = length

    def _prefill_group(self, first_slot: int, rows: _Ints) -> torch.Tensor:
        counts = np.asarray([len(self._pending[row]) for row in rows])
        width = int(counts.max())
        # Padded on the left: the last column then is the last token of every row.
        columns = np.arange(width) - (width - counts)[:, None]
        ids = np.zeros((len(rows), width), dtype=np.int64)
        ids[columns >= 0] = np.concatenate([self._pending[row] for row in rows])
        positions = np.where(columns >= 0, self._cached[rows][:, None] + columns, -1)
        for start in range(0, width, self._prefill_tokens):
            piece = slice(start, start + self._prefill_tokens)
            logits = self._forward(first_slot, ids[:, piece], positions[:, piece])
        for row, count in zip(rows, counts, strict=True):
            self._cached[row] += count
            self._pending[row] = []
        return logits

    def _decode(self, logits: torch.Tensor, rows: _Ints, draft: SegmentDraft, params: SamplingParams) -> None:
        """Sample token by token until every row has ended its segment; a row that ends leaves the batch.

        Args:
            logits: After the last token of each row, [rows, vocab_size], in the order of slots.
            rows: In the order of the draft.
            draft: Takes the tokens.
            params: Holds the temperature.
        """
        suspects = self._codec.may_end(params.stop, logits.shape[-1])
        entry_of_row = np.empty_like(self._cached)
        entry_of_row[rows] = np.arange(len(rows))
        entries = entry_of_row[self._row_in_slot[: len(rows)]]
        while True:
            active = rows[entries]
            uniforms = torch.from_numpy(self._uniforms[active, self._drawn[active] + draft.step])
            tokens, logprobs = draw_tokens(logits, params.temperature, uniforms.to(logits.device))
            ids = tokens.cpu().numpy()
            going_on = draft.add(entries, ids, logprobs.cpu().numpy(), suspects[ids])
            if not going_on.any():
                return
            if not going_on.all():
                kept = _fill_holes(going_on)
                entries, ids = entries[kept], ids[kept]
                self._arrange(rows[entries])
            positions = self._cached[rows[entries]]
            logits = self._forward(0, ids[:, None], positions[:, None])
            self._cached[rows[entries]] += 1

    def _forward(self, first_slot: int, ids: _Ints, positions: _Ints) -> torch.Tensor:
        """Run the model over new tokens of consecutive slots.

        Args:
            first_slot: Slot of the first row.
            ids: [rows, new_tokens].
            positions: Of each token in its row, -1 for padding, [rows, new_tokens].

        Returns:
            Logits of the last column, [rows, vocab_size].
        """
        device = self._model.device
        crop = int(positions.max()) + 1
        self._cache.aim(first_slot, torch.from_numpy(positions).to(device), crop)
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

    def _arrange(self, rows: _Ints) -> None:
        """Bring rows into the first slots, in the given order; the rows they displace take their places."""
        before = self._row_in_slot
        after = before.copy()
        wanted = np.isin(before, rows)
        after[len(rows) :][wanted[len(rows) :]] = before[: len(rows)][~wanted[: len(rows)]]
        after[: len(rows)] = rows
        target = np.flatnonzero(after != before)
        crop = int(self._cached[after[target]].max(initial=0))
        if crop:
            source = np.argsort(before)[after[target]]
            device = self._model.device
            self._cache.move(torch.from_numpy(source).to(device), torch.from_numpy(target).to(device), crop)
        self._row_in_slot = after


def _fill_holes(going_on: npt.NDArray[np.bool_]) -> _Ints:
    """Index of the row for each first slot: rows that go on stay, the last ones fill the holes."""
    count = int(going_on.sum())
    kept = np.arange(count)
    kept[~going_on[:count]] = count + np.flatnonzero(going_on[count:])
    return kept
