"""REPLUG: one prompt a document, and an ensemble of what the model says after each of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from pydantic import PositiveFloat, PositiveInt

from search_agents.config.sections import Section
from search_agents.engines.base import Capability, Completion, FinishReason
from search_agents.methods.base import Setting, able
from search_agents.methods.prompts import SHORT_ANSWER_ENDS, first_line, passages, short_answer_prompt
from search_agents.methods.standard_rag import READ_AND_ANSWER
from search_agents.methods.steps import Steps, generate_all, mixture, note, retrieve
from search_agents.methods.stepwise import StepwiseMethod
from search_env.dialects import make_inert
from search_env.errors import ConfigError, ModelError
from search_env.metrics import normalise
from search_env.types import Prompt, Question

__all__ = ["REPLUG", "document_weights", "likelihood", "vote"]


class REPLUGOptions(Section):
    """What the paper leaves to the user."""

    mode: Literal["token", "answer"] = "token"
    """What is mixed: ``token`` the distribution of every next token, as in the paper's equation, which needs an engine
    with the whole distribution; ``answer`` whole answers, as in the authors' script for question answering, which any
    engine with log-probs can do."""
    score_temperature: PositiveFloat = 6.0
    """Divides the retriever's scores before their softmax. The default is for BM25: among the five documents found for
    training questions, 6 predicts the gold ones best on 2WikiMultiHopQA and MuSiQue and nearly so on HotpotQA (8). With
    1, the first document has more than 95 % of the weight for 59 to 83 % of those questions, and nothing is mixed. Give
    1 for the inner products of a dense retriever, as in the authors' code."""
    top_k: PositiveInt | None = None
    """Documents, one a branch; None takes the environment's number. The authors' script takes 10."""


class REPLUG(StepwiseMethod):
    """Reads each document alone and answers with all of them at once.

    Shi et al. 2023, "REPLUG: Retrieval-Augmented Black-Box Language Models" (arXiv 2301.12652). The weights of the
    documents are the softmax of their retrieval scores. In the mode ``token``, each next token comes from
    p(y) = sum over d of weight(d) * p(y | d, question, answer so far), and is appended to every branch. In the mode
    ``answer``, each document gets a greedy answer, which weighs weight(d) * exp(mean log-prob of its tokens); the
    weights of answers that are the same after normalisation are summed and the heaviest wins, the first of several.

    Per question: 1 search; ``token``: k branches that write 1 text; ``answer``: k calls.

    FlashRAG's pipeline of this name is not this method: it divides the scores by their sum and multiplies the logits
    with them, then always samples. The authors' script shows 16 solved questions first and compares answers as they
    are spelt; here nothing is shown, as with the other methods, and normalised answers are counted together. Training
    the retriever (REPLUG LSR) is not part of it.
    """

    name = "replug"
    Options = REPLUGOptions
    options: REPLUGOptions

    def __init__(self, setting: Setting, options: REPLUGOptions | None = None) -> None:
        super().__init__(setting, options)
        if self.options.mode == "token" and Capability.NEXT_TOKEN not in setting.engine.capabilities:
            raise ConfigError(
                "the method 'replug' mixes the distributions of the next token and needs an engine that can "
                f"{Capability.NEXT_TOKEN}; {setting.engine.name} can {able(setting.engine)}. Use the engine "
                "'transformers', or mix answers: {name: replug, mode: answer}."
            )

    def answer(self, question: Question) -> Steps[str]:
        """One search, then a branch for each document; where none was found, the only branch says so."""
        hits = yield from retrieve(question.text, self.options.top_k)
        prompts = [self._prompt(question, passages([hit])) for hit in hits] or [self._prompt(question, passages([]))]
        weights = document_weights([hit.score for hit in hits] or [0.0], self.options.score_temperature)
        yield from note("weights of the documents", ", ".join(f"{weight:.3f}" for weight in weights))
        # The ends of other short answers: one document is Standard RAG, and only the answer is weighed.
        stop = SHORT_ANSWER_ENDS
        if self.options.mode == "token":
            return first_line((yield from mixture("answer", prompts, weights, stop=stop)).text)
        completions = yield from generate_all(
            "answer to one document", prompts, stop=stop, temperature=0.0, logprobs=True
        )
        answers = [first_line(completion.text) for completion in completions]
        shares = vote(answers, [weight * likelihood(each) for weight, each in zip(weights, completions, strict=True)])
        yield from note(
            "weights of the answers", "\n".join(f"{share:.3f} {answer}" for answer, share in shares.items())
        )
        return max(shares, key=lambda answer: shares[answer])

    def _prompt(self, question: Question, found: str) -> Prompt:
        task = f"{READ_AND_ANSWER}\n\n{found}\n"
        return short_answer_prompt(task, make_inert(question.text), chat=self.setting.chat)


def document_weights(scores: Sequence[float], temperature: float) -> tuple[float, ...]:
    """Softmax of retrieval scores.

    Args:
        scores: One a document, greater is better.
        temperature: Divides them.
    """
    parts = [math.exp((score - max(scores)) / temperature) for score in scores]
    return tuple(part / sum(parts) for part in parts)


def likelihood(completion: Completion) -> float:
    """Exponential of the mean log-probability of a text's tokens, its ending left out.

    The ending is the last token of a text that was not cut off; of an empty text it is all there is. Where a server
    does not even tell that, the empty text weighs nothing.

    Raises:
        ModelError: If the engine does not tell log-probabilities.
    """
    if not completion.logprobs and not completion.tells_ending:
        return 0.0
    if not completion.logprobs:
        raise ModelError(
            "the method 'replug' weighs answers by the log-probs of their tokens, and this engine does not tell them. "
            "Use the engine 'transformers', or a server that returns log-probs."
        )
    ended = completion.tells_ending and completion.finish is not FinishReason.LENGTH and len(completion.logprobs) > 1
    counted = completion.logprobs[:-1] if ended else completion.logprobs
    return math.exp(math.fsum(counted) / len(counted))


def vote(answers: Sequence[str], weights: Sequence[float]) -> dict[str, float]:
    """Sum the weights of answers that are the same after normalisation.

    Returns:
        By answer, in its first spelling, the sum; in the order of the first spellings.
    """
    spellings: dict[str, str] = {}
    sums: dict[str, float] = {}
    for answer, weight in zip(answers, weights, strict=True):
        spelling = spellings.setdefault(normalise(answer), answer)
        sums[spelling] = sums.get(spelling, 0.0) + weight
    return sums
