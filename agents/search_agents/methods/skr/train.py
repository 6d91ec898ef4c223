"""Makes SKR's judge: labels, a part of them held out, and what the judge is worth on that part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search_agents.learning.run_folder import write_json
from search_agents.methods.base import Setting
from search_agents.methods.skr.asking import AskingJudge, verdicts
from search_agents.methods.skr.collect import collect_labels
from search_agents.methods.skr.knn import NeighbourJudge
from search_agents.methods.skr.rule import Label, Totals, Verdict
from search_env.errors import ConfigError
from search_env.types import Question

if TYPE_CHECKING:
    from search_agents.methods.skr import SKROptions

__all__ = ["fit", "judge_worth"]

_HELD_OUT = 5  # every fifth question


def fit(setting: Setting, questions: Sequence[Question], folder: Path, options: SKROptions) -> dict[str, Any]:
    """Label training questions with the model in use, and make a judge of four fifths of them.

    Args:
        setting: Model, retriever and budgets that the judge is for.
        questions: Training questions.
        folder: Takes the labels (see `collect_labels`), the judge in a folder of its own, and ``figures-JUDGE.json``.
        options: Which judge, and how it is made.

    Returns:
        Counts of the labels, and on the fifth that was held out: `judge_worth` of the judge (``held_out``) and, for a
        classifier or examples, of an untrained classifier or none (``untrained``).

    Raises:
        ConfigError: If the judge has no part, or the questions that retrieval makes a difference for are too few.
        RetrieverUnavailable: See `collect_labels`.
        RunError: See `collect_labels`.
    """
    if options.judge == "prompt":
        raise ConfigError(
            "judge=prompt asks the model itself and has nothing to fit. Fit judge=knn, classifier or icl."
        )
    folder.mkdir(parents=True, exist_ok=True)
    rows = collect_labels(setting, questions, folder)
    held_out, training = rows[::_HELD_OUT], [row for place, row in enumerate(rows) if place % _HELD_OUT]
    totals = Totals.of(row["label"] for row in training)
    _require_enough(totals, options.judge)
    figures: dict[str, Any] = {
        "model": setting.engine.name,
        "judge": options.judge,
        "encoder": options.encoder,
        "questions": len(training),
        "labels": totals._asdict(),
        "always_retrieving": judge_worth(held_out, lambda _: Verdict(True, "")),
        "never_retrieving": judge_worth(held_out, lambda _: Verdict(False, "")),
    }
    if options.judge == "knn":
        judge: Any = NeighbourJudge.fit(
            training, options.encoder, neighbours=options.neighbours, index_same=options.same == "indexed"
        )
        figures["held_out"] = judge_worth(held_out, judge)
    elif options.judge == "icl":
        judge = AskingJudge.fit(training, most=options.examples)
        asked = questions[::_HELD_OUT]
        for name, one in (("untrained", AskingJudge()), ("held_out", judge)):
            said = verdicts(setting, one, asked)
            figures[name] = judge_worth(held_out, said.__getitem__)
    else:
        from search_agents.methods.skr.classifier import ClassifierJudge

        judge = ClassifierJudge.untrained(options.encoder, seed=setting.seed)
        figures["untrained"] = judge_worth(held_out, judge)
        figures["loss"] = judge.train(
            training, learning_rate=options.learning_rate, epochs=options.epochs, seed=setting.seed
        )
        figures["held_out"] = judge_worth(held_out, judge)
    judge.save(folder / options.judge, encoder=options.encoder, model=setting.engine.name)
    write_json(folder / f"figures-{options.judge}.json", figures)
    return figures


def judge_worth(rows: Sequence[dict[str, Any]], judge: Callable[[str], Verdict]) -> dict[str, Any]:
    """What a judge is worth on labelled questions that it has not learnt from; no call of the model is needed.

    Args:
        rows: See `collect_labels`.
        judge: Judges a question.

    Returns:
        ``questions``; ``em`` of the answers that the judge chooses, and ``em_best`` of a judge that never errs;
        ``retrieves``, the share of questions that it retrieves for; ``telling``, the number of questions that retrieval
        made a difference for, and ``accuracy`` on these (None if there are none).
    """
    chosen = [(row, judge(row["question"]).retrieve) for row in rows]
    telling = [retrieve == (row["label"] == Label.BETTER) for row, retrieve in chosen if row["label"] != Label.SAME]
    return {
        "questions": len(rows),
        "em": _mean([row["em_with"] if retrieve else row["em_without"] for row, retrieve in chosen]),
        "em_best": _mean([max(row["em_with"], row["em_without"]) for row in rows]),
        "retrieves": _mean([float(retrieve) for _, retrieve in chosen]),
        "telling": len(telling),
        "accuracy": _mean([float(right) for right in telling]),
    }


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _require_enough(totals: Totals, judge: str) -> None:
    """Refuse labels that nothing can be learnt from."""
    enough = totals.better or totals.worse if judge == "knn" else totals.better and totals.worse
    if not enough:
        raise ConfigError(
            f"of {sum(totals)} training questions retrieval helped {totals.better} and harmed {totals.worse}: too few "
            f"for judge={judge}. Label more questions with --limit; those that are labelled are kept."
        )
