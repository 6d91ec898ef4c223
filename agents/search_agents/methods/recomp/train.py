"""Trains the extractive compressor, and says whether it was worth it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from search_agents.methods.base import Setting
from search_agents.methods.recomp.collect import LabelledQuestion, collect
from search_agents.methods.recomp.encoder import DualEncoder
from search_agents.methods.recomp.fit_options import RecompFitOptions
from search_agents.methods.recomp.selection import best
from search_env.errors import ConfigError
from search_env.retrieval import get_retriever
from search_env.types import Document, Question

__all__ = ["fit", "measure", "recall", "train", "triplets"]

FIGURES = "recomp.json"

Scorer = Callable[[LabelledQuestion], Sequence[float]]
"""Scores the candidates of a question."""


def fit(setting: Setting, questions: Sequence[Question], folder: Path, options: RecompFitOptions) -> dict[str, Any]:
    """Label training questions, train the encoder on some and measure it on the others.

    Args:
        setting: Gives the engine that labels, the retriever and the number of documents.
        questions: Training questions.
        folder: Gets the labels, the encoder, and the figures as ``recomp.json``.
        options: How to train.

    Returns:
        Counts, and under the names of the selectors the figures of `measure` on the questions held out.

    Raises:
        ConfigError: If no question is left to train on or to measure, or the folder holds labels of another setting.
        ModelError: If the encoder cannot be loaded, or the engine cannot score.
    """
    labelled = collect(setting, questions, folder)
    held_out = [row for row in labelled if _fraction(row.id) < options.held_out]
    training = [row for row in labelled if _fraction(row.id) >= options.held_out]
    encoder = DualEncoder(options.encoder, device=options.device)
    drawn = triplets(encoder, training, options)
    if not drawn or not held_out:
        raise ConfigError(
            f"of {len(questions)} questions {len(drawn)} can be trained on and {len(held_out)} are held out; at least "
            "1 of each is needed. Give more questions, or more documents a search (env.top_k)."
        )
    selectors: dict[str, Scorer] = {"untrained": _scores_of(encoder), "bm25": _bm25(held_out)}
    figures = {name: measure(held_out, scorer) for name, scorer in selectors.items()}
    train(encoder, drawn, options, seed=setting.seed)
    figures = {"trained": measure(held_out, _scores_of(encoder)), **figures, "chance": _chance(held_out)}
    encoder.save(folder)
    found = {
        "questions": len(questions),
        "trained_on": len(drawn),
        "held_out": len(held_out),
        "labelled_by": setting.engine.name,
        **figures,
        "options": options.model_dump(mode="json"),
    }
    (folder / FIGURES).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return found


def triplets(
    encoder: DualEncoder, rows: Sequence[LabelledQuestion], options: RecompFitOptions
) -> list[tuple[str, str, list[str]]]:
    """Question, positive and hard negatives of each question that some sentence helps.

    The positive is the sentence after which the answer is likeliest; a question whose answer is likelier without
    any sentence is left out. Negatives are those of the rest, less likely by the margin, that the encoder takes for
    the most similar.
    """
    drawn = []
    for row in rows:
        top = max(range(len(row.texts)), key=lambda index: row.logprobs[index])
        worse = [index for index, logprob in enumerate(row.logprobs) if logprob < row.logprobs[top] - options.margin]
        if row.logprobs[top] <= row.without or not worse:
            continue
        scores = encoder.scores(row.question, [row.texts[index] for index in worse])
        negatives = [row.texts[worse[place]] for place in best(scores, options.negatives)]
        drawn.append((row.question, row.texts[top], negatives))
    return drawn


def train(
    encoder: DualEncoder, drawn: Sequence[tuple[str, str, list[str]]], options: RecompFitOptions, *, seed: int
) -> list[float]:
    """Raise the positive above the negatives of its question: Xu et al. 2024, equation 1.

    The loss is the negative log of the positive's share in the softmax over inner products.

    Returns:
        Mean loss of each epoch.
    """
    losses = []
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        optimizer = torch.optim.AdamW(encoder.model.parameters(), lr=options.learning_rate)
        encoder.model.train()
        for _ in range(options.epochs):
            order = torch.randperm(len(drawn)).tolist()
            total = 0.0
            for start in range(0, len(order), options.batch_size):
                batch = [drawn[number] for number in order[start : start + options.batch_size]]
                loss = _loss(encoder, batch)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total += loss.item() * len(batch)
            losses.append(total / len(drawn))
        encoder.model.eval()
    return losses


def measure(rows: Sequence[LabelledQuestion], scorer: Scorer) -> dict[str, float]:
    """How good the sentences are that a scorer puts first.

    Returns:
        gain: By how many nats the first sentence makes the gold answer likelier than none, the mean over questions.
        hit: Share of questions whose first sentence is the one after which the answer is likeliest.
        recall_1, recall_5: Share of the supporting sentences among the first 1 and 5, the mean over the questions
        that have any; left out where none has.
    """
    scores = [scorer(row) for row in rows]
    first = [best(each, 1)[0] for each in scores]
    told = {
        "gain": _mean([row.logprobs[index] - row.without for row, index in zip(rows, first, strict=True)]),
        "hit": _mean([row.logprobs[index] == max(row.logprobs) for row, index in zip(rows, first, strict=True)]),
    }
    return told | recall([row.supporting for row in rows], scores)


def recall(supporting: Sequence[Sequence[int]], scores: Sequence[Sequence[float]]) -> dict[str, float]:
    """See `measure`.

    Args:
        supporting: Indices of the supporting sentences of each question.
        scores: Those of all its sentences.
    """
    asked = [pair for pair in zip(supporting, scores, strict=True) if pair[0]]
    return {
        f"recall_{count}": _mean([len({*best(each, count)} & {*wanted}) / len(wanted) for wanted, each in asked])
        for count in ((1, 5) if asked else ())
    }


def _loss(encoder: DualEncoder, batch: Sequence[tuple[str, str, list[str]]]) -> torch.Tensor:
    # Positives stand in column 0; a question with fewer negatives has its row filled with minus infinity.
    width = 1 + max(len(negatives) for _, _, negatives in batch)
    vectors = encoder.encode([text for question, positive, rest in batch for text in (question, positive, *rest)])
    logits = torch.full((len(batch), width), float("-inf"), device=vectors.device)
    start = 0
    for row, (_, _, negatives) in enumerate(batch):
        end = start + 2 + len(negatives)
        logits[row, : 1 + len(negatives)] = vectors[start + 1 : end] @ vectors[start]
        start = end
    return torch.nn.functional.cross_entropy(logits, torch.zeros(len(batch), dtype=torch.long, device=logits.device))


def _scores_of(encoder: DualEncoder) -> Scorer:
    return lambda row: encoder.scores(row.question, row.texts)


def _bm25(rows: Sequence[LabelledQuestion]) -> Scorer:
    """BM25 over the candidates of all questions, read for each one's own; what does not match scores 0."""
    documents = [
        Document(id=f"{row.id} {number}", title="", text=text) for row in rows for number, text in enumerate(row.texts)
    ]
    retriever = get_retriever("bm25", documents)

    def scores(row: LabelledQuestion) -> list[float]:
        (hits,) = retriever.search([row.question], len(documents))
        found: Mapping[str, float] = {hit.document.id: hit.score for hit in hits}
        return [found.get(f"{row.id} {number}", 0.0) for number in range(len(row.texts))]

    return scores


def _chance(rows: Sequence[LabelledQuestion]) -> dict[str, float]:
    """What `measure` expects of a sentence drawn at random."""
    counts = [len(row.texts) for row in rows if row.supporting]
    told = {
        "gain": _mean([float(np.mean(row.logprobs)) - row.without for row in rows]),
        "hit": _mean([row.logprobs.count(max(row.logprobs)) / len(row.logprobs) for row in rows]),
    }
    if counts:
        told |= {f"recall_{n}": _mean([min(n, count) / count for count in counts]) for n in (1, 5)}
    return told


def _mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), 4)


def _fraction(id_: str) -> float:
    """A number in [0, 1) that an id always gets."""
    return int.from_bytes(hashlib.sha256(id_.encode()).digest()[:6], "big") / 2**48
