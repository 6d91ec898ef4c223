"""The page of an ablation, from ablation.json alone: tables in the paper's layout, and a paragraph on the finding.

Whether the finding holds is computed from the differences, never written down beforehand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from search_agents.evaluation.report import table

__all__ = ["ablation_page", "paragraph"]

Json = Mapping[str, Any]

_PERCENT = ("em", "cem", "f1")
_LABELS = {
    "em": "EM",
    "cem": "CEM (ACC_R)",
    "f1": "F1",
    "searches": "searches/q",
    "response_tokens": "response (tokens)",
    "answer_words": "answer (words)",
}
_CLAIMED = {
    "em": "a higher EM",
    "cem": "a higher CEM",
    "f1": "a higher F1",
    "searches": "more searches a question",
    "response_tokens": "longer responses",
    "answer_words": "longer answers",
}
_DIGITS = {"searches": 2, "response_tokens": 1, "answer_words": 2}
_VERDICTS = {
    "holds": "holds here",
    "reversed": "is the other way round here",
    "open": "stays open here",
}


def ablation_page(results: Json, *, curves: str | None, reports: bool = True) -> str:
    """The content of ablation.md.

    Args:
        results: The content of ablation.json.
        curves: Name of the picture of the curves beside the page; None if there is none.
        reports: Whether the reports of the arms lie beside it, too.
    """
    ablation, arms = results["ablation"], results["arms"]
    paper = ablation["paper"]
    parts = [
        f"# {ablation['title']}",
        f"{paper['finding']} ({paper['source']})",
        *_figures_of_the_paper(paper["figures"]),
        "## Here",
        ablation["here"],
        f"{results['questions']} held-out questions, {results['finished']} of {results['planned']} trainings; EM, CEM "
        "and F1 in percent; the mean over the seeds, with lowest and highest.",
        _table_of_arms(arms),
        paragraph(results),
        *_differences(results["comparisons"]),
        *_groups(arms, "kind"),
        *_groups(arms, "hops"),
    ]
    if curves:
        parts += ["## Curves", f"![Training, arm by arm, with bands over the seeds]({curves})"]
    if arms and reports:
        links = [f"* [{name}]({name}/report.html): its curves, figures and sampled episodes" for name in arms]
        parts.append("\n".join(links))
    return "\n\n".join(parts) + "\n"


def paragraph(results: Json) -> str:
    """Whether the paper's finding holds here, in words."""
    claims = results["claims"]
    told = [claim for claim in claims if claim["verdict"] != "missing"]
    if not told:
        return "Whether the finding holds cannot be said yet: no two of its arms have a finished seed in common."
    sentences = [_overall(told, len(claims)), *(_sentence(claim) for claim in told)]
    seeds = max(len(claim["by_seed"]) for claim in told)
    if seeds == 1:
        sentences.append("One seed says nothing about how far two trainings of the same arm lie apart.")
    if results["finished"] < results["planned"]:
        left = results["planned"] - results["finished"]
        sentences.append(f"This is not the last word: {left} of the {results['planned']} trainings are not finished.")
    return " ".join(sentences)


def _overall(claims: Sequence[Json], planned: int) -> str:
    counts = {name: sum(claim["verdict"] == name for claim in claims) for name in _VERDICTS}
    if planned > len(claims):
        begin = f"Of the {planned} points of the finding, {len(claims)} can be looked at so far"
    elif counts["holds"] == len(claims):
        return "The paper's finding holds here."
    elif counts["reversed"] == len(claims):
        return "The paper's finding does not hold here; the opposite does."
    elif counts["open"] == len(claims):
        return "The paper's finding can be neither confirmed nor refuted here."
    else:
        begin = f"The paper's finding holds here in part: of its {planned} points"
    named = {"holds": "hold", "reversed": "are the other way round", "open": "stay open"}
    return f"{begin}: {', '.join(f'{count} {named[name]}' for name, count in counts.items() if count)}."


def _sentence(claim: Json) -> str:
    metric = claim["metric"]
    by_seed = ", ".join(_signed(metric, value) for value in claim["by_seed"].values())
    unit = " points" if metric in _PERCENT else ""
    return (
        f"That {claim['higher']} has {_CLAIMED[metric]} than {claim['lower']} {_VERDICTS[claim['verdict']]}: "
        f"{_shown(metric, claim['b'])} against {_shown(metric, claim['a'])}, a difference of "
        f"{_signed(metric, claim['difference'])}{unit} (95 % interval over {claim['n']} questions "
        f"{_signed(metric, claim['low'])} to {_signed(metric, claim['high'])}, p = {claim['p_value']:.4f}; "
        f"seed by seed {by_seed})."
    )


def _figures_of_the_paper(figures: Mapping[str, Mapping[str, Sequence[float]]]) -> Iterator[str]:
    if not figures:
        yield "The paper gives no figures for it."
        return
    sets = list(dict.fromkeys(name for arm in figures.values() for name in arm))
    rows = [
        [arm, *(" / ".join(f"{value:.1f}" for value in found[name]) if name in found else "-" for name in sets)]
        for arm, found in figures.items()
    ]
    yield table(["the paper: EM / CEM / F1", *sets], rows)


def _table_of_arms(arms: Json) -> str:
    rows = [
        [name, str(len(arm["seeds"])), *(_ranged(metric, arm["metrics"][metric]) for metric in _LABELS)]
        for name, arm in arms.items()
    ]
    shown = table(["arm", "seeds", *_LABELS.values()], rows)
    invalid = [f"{name} {arm['invalid']}" for name, arm in arms.items() if arm["invalid"]]
    return f"{shown}\n\nEpisodes left out because the retriever failed: {', '.join(invalid)}." if invalid else shown


def _differences(comparisons: Sequence[Json]) -> Iterator[str]:
    rows = [
        [
            f"{each['arm_b']} - {each['arm_a']}",
            _LABELS[each["metric"]],
            _signed(each["metric"], each["difference"]),
            f"{_signed(each['metric'], each['low'])} to {_signed(each['metric'], each['high'])}",
            f"{each['p_value']:.4f}",
            ", ".join(_signed(each["metric"], value) for value in each["by_seed"].values()),
        ]
        for each in comparisons
        if "difference" in each
    ]
    if rows:
        yield "## Differences, question by question"
        yield (
            "Of each question the mean over the seeds. The interval is over questions and knows nothing of other "
            "seeds, so a point of the finding holds only if every seed by itself says the same."
        )
        yield table(["arms", "metric", "difference", "95 % interval", "p", "by seed"], rows)


def _groups(arms: Json, group: str) -> Iterator[str]:
    keys = sorted({key for arm in arms.values() for key in arm[f"f1_by_{group}"]})
    if len(keys) > 1:
        rows = [[name, *(_ranged("f1", arm[f"f1_by_{group}"].get(key)) for key in keys)] for name, arm in arms.items()]
        yield table([f"F1 by {group}", *keys], rows)


def _ranged(metric: str, over: Json | None) -> str:
    if over is None:
        return "-"
    mean, low, high = (_shown(metric, over[key]) for key in ("mean", "low", "high"))
    return mean if low == high else f"{mean} ({low} to {high})"


def _shown(metric: str, value: float) -> str:
    return f"{100 * value:.1f}" if metric in _PERCENT else f"{value:.{_DIGITS[metric]}f}"


def _signed(metric: str, value: float) -> str:
    return f"{100 * value:+.1f}" if metric in _PERCENT else f"{value:+.{_DIGITS[metric]}f}"
