"""``search-env doctor``: what is wrong with this installation, and what to type about it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from search_agents.cli.arguments import RETRIEVER_HELP, Parser, no_settings, retriever_spec
from search_agents.cli.terminal import write

__all__ = ["parser", "run"]


def parser(verb: str, purpose: str) -> Parser:
    """The arguments of the verb."""
    made = Parser(
        verb,
        purpose,
        examples=(
            "search-env doctor",
            "search-env doctor --retriever '{name: http, url: http://127.0.0.1:8000}'",
            "search-env doctor --out /data/outputs --json",
        ),
        more="Each line is ok, note (nothing to mend: what is not installed need not be) or problem, with what to\n"
        "type after the arrow. The exit code is 2 if there is a problem, else 0.",
    )
    made.add_argument("--retriever", metavar="SPEC", help=f"also ask a retriever one query; {RETRIEVER_HELP}")
    made.add_argument(
        "--out", type=Path, default=Path("outputs"), metavar="FOLDER", help="where outputs will be kept [%(default)s]"
    )
    made.add_argument("--json", action="store_true", help="print one JSON array of findings")
    return made


def run(arguments: argparse.Namespace, settings: Sequence[str]) -> int:
    """Print the findings."""
    no_settings(parser("doctor", ""), settings)
    from search_agents.diagnosis import Finding, Verdict, diagnose

    spec = None if arguments.retriever is None else retriever_spec(arguments.retriever)
    findings: list[Finding] = []
    for finding in diagnose(out=arguments.out, searching=spec):
        findings.append(finding)
        if not arguments.json:
            write(_line(finding))
    if arguments.json:
        write(json.dumps([finding._asdict() for finding in findings], indent=2))
    return 2 if any(finding.verdict is Verdict.PROBLEM for finding in findings) else 0


def _line(finding: tuple[str, str, str, str]) -> str:
    check, verdict, text, remedy = finding
    arrow = f"  ->  {remedy}" if remedy else ""
    return " ".join(f"{verdict:8}{check:16}{text}{arrow}".splitlines())
