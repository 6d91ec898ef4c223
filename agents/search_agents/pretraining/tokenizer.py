"""The tokenizer of the tiny base model: byte-level BPE of at most 2,176 tokens.

The tags of the protocol are one token each, and so are the words that FictionalWiki
puts names together from, and its years: a year in digits would be copied digit by digit,
and each of its digits stands in many years. Being byte-level, it reads any text.
"""

from __future__ import annotations

from collections.abc import Iterator

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from search_env.datasets.fictional_wiki import EntityKind, make_questions, make_world, write_pages
from search_env.datasets.fictional_wiki.names import NAME_WORDS
from search_env.dialects import get_dialect

__all__ = ["END_OF_TEXT", "PAD", "make_tokenizer"]

END_OF_TEXT = "<|endoftext|>"
PAD = "<|pad|>"


def make_tokenizer(vocab_size: int = 2176) -> PreTrainedTokenizerFast:
    """Train the tokenizer; the same text, hence the same tokenizer, every time."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r" ?\d{4}|\d"), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tags = list(get_dialect("r1-searcher").tags)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(tags),
        special_tokens=[END_OF_TEXT, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_training_text(), trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END_OF_TEXT, pad_token=PAD)
    # Not special: a special token would vanish when the model's segment is decoded without special tokens.
    fast.add_tokens(tags)
    return fast


def _training_text() -> Iterator[str]:
    """The words of names and the years on their own, then sentences whose names are cut out."""
    for word in NAME_WORDS:
        yield from (f" {word}",) * 200
    for year in range(1800, 2050):
        yield from (f" {year}",) * 200
    world = make_world(seed=-1, people=200)
    names = sorted(world.kinds, key=len, reverse=True)
    surnames = sorted({name.split()[-1] for name in world.of_kind(EntityKind.PERSON)})
    for text in (
        *(page.text for page in write_pages(world, seed=-1, prefix="")),
        *(question.text for question, _ in zip(make_questions(world, seed=-1), range(3000), strict=False)),
        *(step.statement for question, _ in zip(make_questions(world, seed=-2), range(3000), strict=False)
          for step in question.steps),
    ):  # fmt: skip
        for name in (*names, *surnames):
            text = text.replace(name, "")
        yield text
