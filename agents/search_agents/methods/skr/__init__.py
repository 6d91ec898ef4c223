"""SKR: the model's own record on similar questions says whether to search at all.

The record is made by `collect`, for the model in use; `knn`, `classifier` and `asking` have
the judges that learn from it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from search_agents.config.sections import Section
from search_agents.methods.base import Setting
from search_agents.methods.skr.asking import AskingJudge
from search_agents.methods.skr.collect import think_it_over
from search_agents.methods.skr.encoders import HASHED_WORDS
from search_agents.methods.skr.knn import NeighbourJudge
from search_agents.methods.skr.rule import Verdict
from search_agents.methods.steps import Steps, note
from search_agents.methods.stepwise import StepwiseMethod
from search_agents.models import model_fingerprint
from search_env.errors import ConfigError
from search_env.types import Question

__all__ = ["SKR", "SKROptions"]


class SKROptions(Section):
    """Options of the method ``skr``."""

    judge: Literal["knn", "classifier", "icl", "prompt"] = "knn"
    """knn: labelled neighbours vote; classifier: a fine-tuned encoder; icl: the model is asked whether it has to look
    something up, after labelled questions; prompt: after none, which needs no part (the paper's weaker variants)."""
    part: str | None = None
    """Folder that `search-env fit --method skr` wrote; needed by all judges but prompt."""
    neighbours: PositiveInt = 5
    """knn: k, from 3 to 10 in the paper; FlashRAG's 5."""
    same: Literal["excluded", "indexed"] = "excluded"
    """knn: whether questions for which retrieval changed nothing can be neighbours. excluded: the authors' code;
    indexed: FlashRAG's."""
    encoder: str = HASHED_WORDS
    """For fit: what makes vectors of questions: a folder or hub id for sentence-transformers (the paper takes
    SimCSE-BERT), or hashed-words, a stand-in that needs no model. For the classifier: the encoder that is fine-tuned
    (the paper takes BERT)."""
    learning_rate: PositiveFloat = 2e-5
    """For fit of the classifier: of AdamW (the paper's)."""
    examples: Annotated[int, Field(ge=2)] = 8
    """For fit of icl: labelled questions in the prompt, half of them of each kind (the number is ours)."""
    epochs: PositiveInt = 10
    """For fit of the classifier: times that each question is seen (the paper's)."""


class SKR(StepwiseMethod):
    """SKR (Wang et al. 2023, arXiv 2310.05002): searches only where the model's own record says that it helps.

    A training question is labelled by answering it with the model in use, by a chain of thought from its own knowledge
    and by one from documents: retrieval made the answer better or worse, or changed nothing (exact match). For a new
    question a judge that learnt from these labels decides, and the question is answered in the one way or the other.

    Cost: one call of the model, one more if its chain of thought states no answer (see `conclude`), one more with
    judge=icl or prompt; one search, or none.

    Beside FlashRAG's: it answers without a chain of thought and takes labels of another model from a file. A part
    whose labels are another model's is refused here.

    Args:
        setting: What the comparison holds fixed.
        options: What the method leaves open; None takes its paper's defaults.

    Raises:
        ConfigError: If the judge needs a part and has none, or one of another model.
    """

    name = "skr"
    Options = SKROptions

    def __init__(self, setting: Setting, options: Any = None) -> None:
        super().__init__(setting, options)
        self._judge: Callable[[str], Verdict] | AskingJudge = AskingJudge()
        self._fingerprint: str | None = None
        if self.options.judge != "prompt":
            folder = _part_folder(self.options, setting.engine.name)
            self._judge = _load(folder, self.options)
            self._fingerprint = model_fingerprint(str(folder))

    @property
    def fingerprint(self) -> str | None:
        """Of the judge's folder; None for the judge that has none."""
        return self._fingerprint

    def answer(self, question: Question) -> Steps[str]:
        """Judge, then answer with documents or without."""
        if isinstance(self._judge, AskingJudge):
            verdict = yield from self._judge.judge(question.text, chat=self.setting.chat)
        else:
            verdict = self._judge(question.text)
        yield from note("verdict", f"{'retrieve' if verdict.retrieve else 'do not retrieve'}: {verdict.why}")
        return (yield from think_it_over(self.setting, question, retrieves=verdict.retrieve))

    @classmethod
    def fit_options(cls) -> type[SKROptions]:
        """What `fit` takes."""
        return SKROptions

    @classmethod
    def fit(cls, setting: Setting, questions: Sequence[Question], folder: Path, options: SKROptions) -> dict[str, Any]:
        """Label training questions and make the judge; see `search_agents.methods.skr.train.fit`."""
        from search_agents.methods.skr.train import fit

        return fit(setting, questions, folder, options)


def _part_folder(options: SKROptions, model: str) -> Path:
    how = "Make one: search-env fit --method skr --model MODEL --out FOLDER, and give {name: skr, part: FOLDER}."
    if options.part is None:
        raise ConfigError(f"the method 'skr' with judge={options.judge} needs labels of the model in use. {how}")
    folder = Path(options.part).expanduser() / options.judge
    if not (folder / "part.json").is_file():
        raise ConfigError(f"{options.part} holds no part for judge={options.judge}. {how}")
    of = json.loads((folder / "part.json").read_text(encoding="utf-8"))["model"]
    if of != model:
        raise ConfigError(f"the labels in {options.part} are those of {of!r}, and the model is {model!r}. {how}")
    return folder


def _load(folder: Path, options: SKROptions) -> Callable[[str], Verdict] | AskingJudge:
    if options.judge == "knn":
        return NeighbourJudge.load(folder, neighbours=options.neighbours, index_same=options.same == "indexed")
    if options.judge == "icl":
        return AskingJudge.load(folder)
    from search_agents.methods.skr.classifier import ClassifierJudge

    return ClassifierJudge.load(folder)
