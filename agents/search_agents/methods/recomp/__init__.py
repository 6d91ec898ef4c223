"""RECOMP: a small trained model compresses what was found before the large one reads it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import PositiveInt

from search_agents.config.sections import Section
from search_agents.methods.base import Setting
from search_agents.methods.compression import document_text, shown
from search_agents.methods.recomp.fit_options import RecompFitOptions
from search_agents.methods.recomp.selection import best, candidates, passages_of
from search_agents.methods.standard_rag import READ_AND_ANSWER
from search_agents.methods.steps import Steps, note, retrieve
from search_agents.methods.stepwise import StepwiseMethod
from search_env.dialects import make_inert
from search_env.errors import ConfigError
from search_env.types import Document, Question

__all__ = ["Recomp", "RecompFitOptions", "RecompOptions"]


class RecompOptions(Section):
    """Which compressor, and how much it leaves."""

    compressor: Literal["extractive", "abstractive"] = "extractive"
    """extractive: a dual encoder picks sentences. abstractive: a sequence-to-sequence model writes a summary."""
    part: str | None = None
    """The trained compressor: the folder that `search-env fit` wrote (extractive), or the folder or hub id of
    one that the authors released: fangyuan/hotpotqa_extractive_compressor, fangyuan/hotpotqa_abstractive."""
    untrained: str | None = None
    """In place of a part, any encoder as it comes: folder or hub id. The row is then called recomp (untrained)."""
    sentences: PositiveInt = 1
    """Sentences that the extractive compressor leaves; the paper's 1 for question answering, FlashRAG's are 5."""
    device: str = "cpu"
    """Where the compressor computes: cpu, cuda, …"""


class Recomp(StepwiseMethod):
    """Xu et al. 2024 (arXiv:2310.04408): compresses the documents by sentences picked, or by a summary.

    The extractive compressor is trained to find the sentence after which the model finds the gold answer likeliest;
    `fit` trains one. The abstractive one sums up, and where its summary is empty the model answers without documents
    (selective augmentation); the paper distils it from GPT-3.5, so that here it is only run, from the folder or id
    of any sequence-to-sequence model.

    One search, one call of the model; the compressor computes beside it.

    It differs from the authors' code where a sentence is read: with its document's title before it.
    """

    name = "recomp"
    Options = RecompOptions
    options: RecompOptions

    def __init__(self, setting: Setting, options: RecompOptions | None = None) -> None:
        super().__init__(setting, options)
        # Here, for it brings torch.
        from search_agents.methods.recomp.encoder import DualEncoder, Summarizer

        options = self.options
        name = _compressor(options)
        if options.untrained is not None:
            self.name = "recomp (untrained)"
        kind = DualEncoder if options.compressor == "extractive" else Summarizer
        self._compressor: Any = kind(name, device=options.device)
        shown_name = Path(name).name if Path(name).exists() else name  # folders of a machine mean nothing elsewhere
        self._told = f"{options.compressor}, {'untrained' if options.untrained else 'trained'}: {shown_name}"

    @property
    def note(self) -> str:
        """Which compressor it has, and whether it was trained; see `StepwiseMethod.note`."""
        return f"compressor {self._told}"

    @property
    def fingerprint(self) -> str:
        """Of the compressor: a hash of its files, or its hub id."""
        return f"{'untrained-' if self.options.untrained else ''}{self._compressor.fingerprint}"

    def answer(self, question: Question) -> Steps[str]:
        """Search, compress, answer."""
        hits = yield from retrieve(question.text)
        documents = [hit.document for hit in hits]
        compress = self._pick if self.options.compressor == "extractive" else self._sum_up
        texts = compress(make_inert(question.text), documents)
        yield from note("compressor", self._told)
        yield from note("compression", shown(texts) if any(texts) else "empty: the documents are left out")
        if not any(texts):
            return (yield from self.short_answer(question, "Answer the question from what you know."))
        return (yield from self.short_answer(question, f"{READ_AND_ANSWER}\n\n{shown(texts)}\n"))

    @classmethod
    def fit_options(cls) -> type[RecompFitOptions]:
        """What `fit` takes."""
        return RecompFitOptions

    @classmethod
    def fit(
        cls, setting: Setting, questions: Sequence[Question], folder: Path, options: RecompFitOptions
    ) -> dict[str, Any]:
        """Train an extractive compressor; see `search_agents.methods.recomp.train.fit`."""
        from search_agents.methods.recomp.train import fit

        return fit(setting, questions, folder, options)

    def _pick(self, question: str, documents: Sequence[Document]) -> list[str]:
        found = candidates(documents)
        if not found:
            return []
        scores = self._compressor.scores(question, [candidate.text for candidate in found])
        return passages_of([found[index] for index in best(scores, self.options.sentences)])

    def _sum_up(self, question: str, documents: Sequence[Document]) -> list[str]:
        summary = self._compressor(question, [document_text(document) for document in documents])
        return [make_inert(summary)] if documents else []


def _compressor(options: RecompOptions) -> str:
    """The name of what compresses.

    Raises:
        ConfigError: If there is none, or more than one.
    """
    name = options.part or options.untrained
    if name is None and options.compressor == "abstractive":
        raise ConfigError(
            "the abstractive compressor of recomp is a trained model. Give its folder or hub id: {name: recomp, "
            "compressor: abstractive, part: fangyuan/hotpotqa_abstractive}."
        )
    if name is None:
        raise ConfigError(
            "the method 'recomp' needs a trained compressor. Train one: search-env fit --method '{name: recomp, "
            "encoder: ENCODER}' --model MODEL --out FOLDER, and give {name: recomp, part: FOLDER}; or take an encoder "
            "as it comes, in a row of its own: {name: recomp, untrained: ENCODER}."
        )
    if options.part is not None and options.untrained is not None:
        raise ConfigError("recomp takes one compressor, got both part and untrained. Leave one of them out.")
    if options.untrained is not None and options.compressor == "abstractive":
        raise ConfigError("untrained names an encoder, and the abstractive compressor is none. Give a part.")
    return name
