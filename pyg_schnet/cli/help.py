"""Help: what to type, what it does, and an example on lines of its own."""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Iterable

from jsonargparse import ArgumentParser, DefaultHelpFormatter

_WIDTH = 78


class HelpFormatter(DefaultHelpFormatter):
    """The formatter of all verbs: usage in one line, no types, only defaults that tell something."""

    def _format_usage(self, usage, actions, groups, prefix) -> str:
        return f"usage: {usage or usage_of(self._prog, actions)}\n\n"

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """Fill paragraphs; lines that are indented stay as they are."""
        lines = (
            indent + line if line.startswith("  ") else textwrap.fill(line, width)
            for line in text.splitlines()
        )
        return "\n".join(lines)

    def _format_action(self, action: argparse.Action) -> str:
        if isinstance(action, argparse._SubParsersAction):  # its own line says nothing
            return "".join(self._format_action(verb) for verb in action._get_subactions())
        return super()._format_action(action)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        return re.sub(r", --\S+\+ \S+", "", super()._format_action_invocation(action))  # a list's --key+

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        if isinstance(action, argparse._HelpAction):
            return "show this help, and exit"
        if action.required and action.option_strings:
            return f"{text} (required)"
        if isinstance(action, argparse._VersionAction):
            return "show the version, and exit"
        tells_nothing = (
            action.default is None or action.default is False or action.default == argparse.SUPPRESS
        )
        if tells_nothing or action.nargs == 0 or not action.option_strings:
            return text
        return f"{text} (default: %(default)s)"


def usage_of(program: str, actions: Iterable[argparse.Action]) -> str:
    """Give what to type: the verb, its arguments, and that options follow."""
    words = [program]
    for action in actions:
        if not action.option_strings and action.help != argparse.SUPPRESS:
            words.append(name_of(action))
    return " ".join([*words, "..." if words[-1] == "VERB" else "[--key value …]"])


def name_of(action: argparse.Action) -> str:
    """Give the name of an option or of an argument as users type or read it."""
    if action.option_strings:
        return action.option_strings[0]
    name = str(action.metavar or action.dest)
    return {"+": f"{name} ...", "?": f"[{name}]"}.get(str(action.nargs), name)


def parser_of(description: str = "", **kwargs) -> ArgumentParser:
    """Make a parser that raises, so that ``main`` tells what is wrong.

    Args:
        description: What the verb does. What follows "Example: ", one command a line, is shown at the end.
        **kwargs: Arguments of :class:`jsonargparse.ArgumentParser`.
    """
    description, _, commands = description.partition("Example: ")
    if commands:
        examples = [f"  {line}" for command in commands.splitlines() for line in _fold(command)]
        kwargs["epilog"] = "\n".join(["Example:" if commands.count("\n") == 0 else "Examples:", *examples])
    parser = ArgumentParser(
        description=description.strip(), exit_on_error=False, formatter_class=HelpFormatter, **kwargs
    )
    parser._positionals.title = "arguments"
    return parser


def _fold(command: str) -> list[str]:
    """Break a command over lines as a shell reads it."""
    lines = textwrap.wrap(
        command.strip(), _WIDTH - 4, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
    )
    return [f"{line} \\" for line in lines[:-1]] + lines[-1:]
