"""Fuzzes one target with atheris, which learns from the lines that an input reaches.

Usage: python fuzz.py TARGET NEW_INPUTS CORPUS [OPTION_OF_LIBFUZZER …]

Inputs that reach new lines are kept in NEW_INPUTS. What breaks the target is written beside that folder, as
NEW_INPUTS-crash-…: put it into the corpus once it is mended.
"""

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["search_env", "search_agents", "yaml", "targets"]):
    from targets import TARGETS


def main() -> None:
    """Run until libFuzzer's own limit."""
    name, new, corpus, *options = sys.argv[1:]
    Path(new).mkdir(parents=True, exist_ok=True)

    def check(data: bytes) -> None:
        if data:
            TARGETS[name](data)

    atheris.Setup([sys.argv[0], new, corpus, f"-artifact_prefix={new}-", *options], check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
