"""Prompts that a user brings in a file.

A prompt file is plain UTF-8 text, the whole prompt with ``{question}`` where the question
goes; nothing else in it is special, braces included. If it ends in the opening tag of the
reasoning, that tag is the prefill: a chat template then puts it after the generation
prompt, and the model must not write it again. The last line break of the file is the
editor's and does not count.
"""

from __future__ import annotations

from pathlib import Path

from search_env.dialects.base import Dialect
from search_env.errors import ConfigError
from search_env.types import Prompt

__all__ = ["fill_template", "read_prompt_file", "with_prompt"]

_PLACEHOLDER = "{question}"


def read_prompt_file(path: str | Path) -> str:
    """Read a prompt file.

    Args:
        path: A UTF-8 text file that holds ``{question}``.

    Returns:
        The template, ready for `with_prompt`.

    Raises:
        ConfigError: If the file cannot be read or holds no ``{question}``.
    """
    try:
        template = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        reason = (error.strerror or "it cannot be read").lower()
        raise ConfigError(
            f"prompt file {str(path)!r}: {reason}. Give the path of a text file, or one of base, instruct, bare."
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"prompt file {str(path)!r}: not UTF-8 text ({error}). Save it as UTF-8.") from error
    _check(template, f"prompt file {str(path)!r}")
    return template.removesuffix("\n")


def with_prompt(dialect: Dialect, template: str) -> Dialect:
    """Give a dialect a user's own prompt.

    Args:
        dialect: The dialect whose tags the prompt explains.
        template: The whole prompt with ``{question}`` in it.

    Returns:
        A dialect that words every prompt by the template, whatever the style. If the template does not end in the
        opening tag of the reasoning, the model has to write that tag itself, and the format rules expect it to.

    Raises:
        ConfigError: If the template holds no ``{question}``.
    """
    _check(template, "the prompt")
    return dialect.with_template(template)


def fill_template(template: str, question: str, *, prefill: str) -> Prompt:
    """Put a question into a template.

    Args:
        template: The whole prompt with ``{question}`` in it.
        question: The question, already inert.
        prefill: The text that becomes the prompt's prefill if the template ends in it.

    Returns:
        The prompt; its plain text is the template with the question in place.
    """
    if prefill and template.endswith(prefill):
        return Prompt(user=template.removesuffix(prefill).replace(_PLACEHOLDER, question), prefill=prefill)
    return Prompt(user=template.replace(_PLACEHOLDER, question))


def _check(template: str, what: str) -> None:
    if _PLACEHOLDER not in template:
        raise ConfigError(f"{what} holds no {_PLACEHOLDER}. Write {_PLACEHOLDER} where the question belongs.")
