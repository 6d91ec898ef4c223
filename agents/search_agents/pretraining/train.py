"""Pre-train the tiny base model of the embedded default and write it as a Hugging Face folder.

Example:
    python -m search_agents.pretraining --out model --minutes 45
    python -m search_agents.pretraining --out better --start model --seed 1 --minutes 30

Text is made while training (`corpus`), in three stretches: drills first, which teach copying,
then fact sheets and short notebooks, where reading is learned cheaply, then everything.
With ``--start`` a model that has been through them goes on with everything.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.models.llama.modeling_llama import LlamaAttention

from search_agents.learning.attention import training_attention
from search_agents.pretraining.corpus import DECISIONS, Habits, Span, Stretch, notebooks
from search_agents.pretraining.tokenizer import make_tokenizer
from search_env.datasets.fictional_wiki import KIND_SHARES, QuestionKind

__all__ = ["main"]

READING = Stretch(
    shares={
        (QuestionKind.SINGLE, 1): 0.25,
        (QuestionKind.COMPOSITIONAL, 2): 0.4,
        (QuestionKind.INFERENCE, 2): 0.15,
        (QuestionKind.COMPARISON, 2): 0.2,
    },
    top_k=(1, 2),
    drills=0.3,
    fact_sheets=0.8,
)
COPYING = READING._replace(drills=0.97, fact_sheets=0.6)
# More questions of one hop than the environment asks, for where one hop is enough must be learned from them, and more
# comparisons, which are the hardest.
FULL = Stretch(
    shares=KIND_SHARES
    | {
        (QuestionKind.SINGLE, 1): 0.22,
        (QuestionKind.COMPOSITIONAL, 2): 0.22,
        (QuestionKind.COMPARISON, 2): 0.22,
        (QuestionKind.BRIDGE_COMPARISON, 4): 0.12,
    },
    top_k=(2, 3, 3),
    drills=0.1,
    fact_sheets=0.15,
)
STRETCHES: tuple[tuple[Stretch, float], ...] = ((COPYING, 0.06), (READING, 0.3), (FULL, 1.0))
"""Each with the share of the time at whose end it is over."""
PERFECT = Habits(search_first=1, answer_early=0, drift=0, finish=1, answer_beside=0, keep_format=1)
TOKENS_PER_STEP = 8192
IGNORED = -100
CHOICES = 2
"""Tokens that may stand in the place of one, at most."""


class Batch(NamedTuple):
    """Right-padded sequences of about equal length."""

    tokens: Tensor  # int64 [sequences, length]
    targets: Tensor  # int64 [sequences, length]; the next token where it is learned, else IGNORED
    others: Tensor  # int64 [sequences, length, CHOICES]; tokens that might stand in the target's place, else IGNORED
    odds: Tensor  # float32 [sequences, length, CHOICES]; their probabilities


class _Sequence(NamedTuple):
    tokens: list[int]
    targets: list[int]
    choices: dict[int, tuple[tuple[int, float], ...]]


class NotebookStream(IterableDataset[Batch]):
    """Endless batches of notebooks, of similar lengths each."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, seed: int, stretch: Stretch, habits: Habits) -> None:
        self._tokenizer, self._seed, self._stretch, self._habits = tokenizer, seed, stretch, habits

    def __iter__(self) -> Iterator[Batch]:
        sequences = (self._encode(spans) for spans in notebooks(self._seed, self._stretch, self._habits))
        shuffle = torch.Generator().manual_seed(self._seed)
        while True:
            buffer = sorted(islice(sequences, 1024), key=lambda sequence: len(sequence.tokens))
            batches = list(_split(buffer))
            for index in torch.randperm(len(batches), generator=shuffle).tolist():
                yield _pad(batches[index])

    def _encode(self, spans: list[Span]) -> _Sequence:
        tokens: list[int] = []
        learned: list[bool] = []
        choices: dict[int, tuple[tuple[int, float], ...]] = {}
        for span in spans:
            ids = self._tokenizer(span.text)["input_ids"] if span.text else [self._tokenizer.eos_token_id]
            if span.instead:  # targets stand one place before their tokens
                choices[len(tokens) - 1] = tuple((self._tokenizer(text)["input_ids"][0], p) for text, p in span.instead)
            tokens += ids
            learned += [span.learn] * len(ids)
        targets = [t if learn else IGNORED for t, learn in zip(tokens[1:], learned[1:], strict=True)] + [IGNORED]
        return _Sequence(tokens, targets, choices)


def main() -> None:
    """Parse the command line, train, save."""
    parser = argparse.ArgumentParser(prog="python -m search_agents.pretraining", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the model")
    parser.add_argument("--start", type=Path, metavar="FOLDER", help="go on from the model there, with everything")
    parser.add_argument("--minutes", type=float, default=45, help="how long to train (default: 45)")
    parser.add_argument("--threads", type=int, default=2, help="torch threads (default: 2)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    if args.start is None:
        tokenizer, stretches = make_tokenizer(), STRETCHES
        model = make_model(tokenizer)
    else:
        tokenizer, stretches = PreTrainedTokenizerFast.from_pretrained(args.start), STRETCHES[-1:]
        model = LlamaForCausalLM.from_pretrained(args.start, dtype=torch.float32, use_safetensors=True)
    report: dict[str, Any] = train(model, tokenizer, args.minutes * 60, args.seed, args.out, stretches)
    report |= {"minutes": args.minutes, "seed": args.seed, "threads": args.threads, "machine": platform.machine()}
    if args.start is not None:
        report["start"] = json.loads((args.start / "pretraining.json").read_text())
    save(model, tokenizer, args.out)
    (args.out / "pretraining.json").write_text(json.dumps(report, indent=2) + "\n")


def make_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A Llama of about 2.3M parameters with grouped-query attention."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=448,
        num_hidden_layers=5,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=48,
        attention_bias=True,
        tie_word_embeddings=True,
        max_position_embeddings=2048,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    _initialise(model)
    return model


@torch.no_grad()
def _initialise(model: LlamaForCausalLM) -> None:
    """Start from a residual stream that carries the tokens and nothing else, and one head that looks back one token.

    Copying is to find where a token stood before and repeat what followed. That needs a head that
    tells each token what preceded it; gradient descent takes millions of tokens to find one, and
    a hundred steps to make use of one that is there.
    """
    for name, parameter in model.named_parameters():
        if "embed" in name:
            parameter.normal_(0, 0.2)
        elif name.endswith(("o_proj.weight", "down_proj.weight")):
            parameter.zero_()
        elif parameter.ndim == 2:
            parameter.normal_(0, parameter.shape[1] ** -0.5)
    # Tied embeddings of this size would make every first guess a repetition of the last token.
    model.model.norm.weight.fill_(0.1)
    _look_back(model.model.layers[0].self_attn, model.model.rotary_emb.inv_freq, model.config.head_dim)


def _look_back(attention: LlamaAttention, frequencies: Tensor, head_dim: int, strength: float = 6.0) -> None:
    """Make the heads of the first key head attend to the preceding token.

    With rotary positions the score of a constant query and key depends on their distance alone; a
    query that is the key turned by one position scores highest at distance one.

    Args:
        attention: A layer's attention.
        frequencies: Rotary frequencies, [head_dim / 2].
        head_dim: Size of a head.
        strength: Length of each rotary pair of the key.
    """
    half = head_dim // 2
    attention.k_proj.bias[:half] = strength
    attention.q_proj.bias[:half] = strength * torch.cos(frequencies)
    attention.q_proj.bias[half:head_dim] = -strength * torch.sin(frequencies)
    for projection in (attention.q_proj, attention.k_proj):
        projection.weight[:head_dim] *= 0.1


def train(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    seconds: float,
    seed: int,
    out: Path,
    stretches: Sequence[tuple[Stretch, float]] = STRETCHES,
) -> dict[str, float]:
    """Train for a time budget, on each stretch until its share of the time is over.

    Returns:
        Steps, tokens seen, and the `skills` at the end.
    """
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    # Muon learns to copy in half the steps that AdamW takes here.
    optimizers = [
        torch.optim.Muon(matrices, lr=0.02, weight_decay=0.01, adjust_lr_fn="original"),
        torch.optim.AdamW(others, lr=3e-3, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    rates = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    start, step, tokens, loss_sum, last_save = time.monotonic(), 0, 0, 0.0, 0.0
    for stretch, until in stretches:
        stream = NotebookStream(tokenizer, seed + step, stretch, Habits())
        loader = DataLoader(stream, batch_size=None, num_workers=1, prefetch_factor=16)
        for batch in loader:
            progress = (time.monotonic() - start) / seconds
            if progress >= until:
                break
            for optimizer, rate in zip(optimizers, rates, strict=True):
                optimizer.param_groups[0]["lr"] = rate * _schedule(progress, step)
            loss = _loss(model, batch)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            step, tokens = step + 1, tokens + batch.tokens.numel()
            loss_sum += float(loss.detach())
            if step % 100 == 0:
                line = f"step {step} {progress:.1%} {tokens / 1e6:.1f}M tokens, loss {loss_sum / 100:.3f}"
                print(f"{line}, {skills(model, tokenizer, stretch)}", flush=True)  # noqa: T201
                loss_sum = 0.0
            if time.monotonic() - last_save > 300:
                save(model, tokenizer, out)
                last_save = time.monotonic()
    return {"steps": step, "tokens": tokens, **skills(model, tokenizer, FULL, batches=12)}


@torch.no_grad()
def skills(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, stretch: Stretch, batches: int = 3
) -> dict[str, float]:
    """How well the model writes what a perfect reader writes, in held-out worlds and teacher forced.

    Returns:
        Share of tokens right, decisions left out: they are habits, not skills. Share of notebooks without an error.
    """
    right = total = whole = sequences = 0
    stream = NotebookStream(tokenizer, 999, stretch._replace(drills=0, fact_sheets=0), PERFECT)
    decisions = torch.tensor([tokenizer(text)["input_ids"][0] for text in DECISIONS])
    for batch in islice(stream, batches):
        learned = (batch.targets != IGNORED) & (batch.others == IGNORED).all(-1)
        learned &= ~torch.isin(batch.targets, decisions)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            hits = (model(batch.tokens).logits.argmax(-1) == batch.targets) & learned
        right, total = right + int(hits.sum()), total + int(learned.sum())
        whole, sequences = whole + int((hits == learned).all(1).sum()), sequences + len(batch.tokens)
    return {"token_accuracy": round(right / total, 4), "whole_notebooks": round(whole / sequences, 3)}


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write the folder with bf16 weights."""
    copy = LlamaForCausalLM(model.config)
    copy.load_state_dict(model.state_dict())
    copy.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)


def _loss(model: LlamaForCausalLM, batch: Batch) -> Tensor:
    """Cross-entropy with the target, or with the distribution over what might stand in its place."""
    learned = batch.targets != IGNORED
    with torch.autocast("cpu", dtype=torch.bfloat16), training_attention(model):
        hidden = model.model(batch.tokens).last_hidden_state
        logits = model.lm_head(hidden[learned])
    logprobs = logits.float().log_softmax(-1)
    odds = batch.odds[learned]
    tokens = torch.cat([batch.targets[learned][:, None], batch.others[learned].clamp(min=0)], dim=1)
    weights = torch.cat([1 - odds.sum(1, keepdim=True), odds], dim=1)
    loss: Tensor = -(logprobs.gather(1, tokens) * weights).sum(1).mean()
    return loss


def _schedule(progress: float, step: int) -> float:
    """Warm up over 50 steps, hold, then fall along a cosine over the last half."""
    fall = 0.5 * (1 + math.cos(math.pi * max(0.0, progress - 0.5) / 0.5)) if progress < 1 else 0.0
    return min(1.0, (step + 1) / 50) * max(0.02, fall)


def _split(sequences: list[_Sequence]) -> Iterator[list[_Sequence]]:
    """Cut a list sorted by length into batches of about TOKENS_PER_STEP padded tokens."""
    batch: list[_Sequence] = []
    for sequence in sequences:
        if batch and (len(batch) + 1) * len(sequence.tokens) > TOKENS_PER_STEP:
            yield batch
            batch = []
        batch.append(sequence)
    yield batch


def _pad(sequences: list[_Sequence]) -> Batch:
    # Few distinct shapes: oneDNN keeps a compiled kernel for each it meets.
    length = 32 * math.ceil(max(len(sequence.tokens) for sequence in sequences) / 32)
    tokens = torch.tensor([s.tokens + [0] * (length - len(s.tokens)) for s in sequences])
    targets = torch.tensor([s.targets + [IGNORED] * (length - len(s.targets)) for s in sequences])
    others = torch.full((*tokens.shape, CHOICES), IGNORED)
    odds = torch.zeros(others.shape)
    for row, sequence in enumerate(sequences):
        for place, choices in sequence.choices.items():
            for number, (token, probability) in enumerate(choices):
                others[row, place, number], odds[row, place, number] = token, probability
    return Batch(tokens, targets, others, odds)
