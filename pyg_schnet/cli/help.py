"""Help texts: usage in one line, description, arguments, and examples on lines of their own."""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Iterable
from typing import Any, get_args

from jsonargparse import ArgumentParser, DefaultHelpFormatter

_WIDTH = 78
# Groups of options, in this order after the options that fit into none; help omits empty ones.
_GROUPS = ("published data sets", "limits", "structures", "computation", "output")
_METAVARS = {int: "N", float: "NUMBER"}


class HelpFormatter(DefaultHelpFormatter):
    """Formatter of all help texts: usage in one line, no types, only informative defaults."""

    def _format_usage(self, usage, actions, groups, prefix) -> str:
        return f"usage: {usage or usage_line(self._prog, actions)}\n\n"

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """Fill paragraphs; keep indented lines."""
        lines = (
            indent + line if line.startswith("  ") else textwrap.fill(line, width)
            for line in text.splitlines()
        )
        return "\n".join(lines)

    def _format_action(self, action: argparse.Action) -> str:
        if isinstance(action, argparse._SubParsersAction):  # its own line has no information
            return "".join(self._format_action(command) for command in action._get_subactions())
        return super()._format_action(action)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        return re.sub(r", --\S+\+ \S+", "", super()._format_action_invocation(action))  # a list's --key+

    def _get_default_metavar_for_optional(self, action: argparse.Action) -> str:
        """Return the kind of a number, or the last word of the option's name."""
        hint = getattr(action, "_typehint", None) or action.type
        kinds = [_METAVARS[kind] for kind in (get_args(hint) or (hint,)) if kind in _METAVARS]
        return kinds[0] if kinds else re.split(r"[._]", action.dest)[-1].upper()

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        if isinstance(action, argparse._HelpAction):
            return "show this help and exit"
        if action.required and action.option_strings:
            return f"{text} (required)"
        if isinstance(action, argparse._VersionAction):
            return "show the version and exit"
        is_uninformative = (
            action.default is None or action.default is False or action.default == argparse.SUPPRESS
        )
        if is_uninformative or action.nargs == 0 or not action.option_strings:
            return text
        return f"{text} (default: %(default)s)"


def group(parser: ArgumentParser, title: str) -> Any:
    """Return the group of options with a title, one of ``_GROUPS``."""
    return next(group for group in parser._action_groups if group.title == title)


def usage_line(program: str, actions: Iterable[argparse.Action]) -> str:
    """Return the usage line: program, arguments, and a placeholder for options."""
    words = [program]
    for action in actions:
        if not action.option_strings and action.help != argparse.SUPPRESS:
            words.append(display_name(action))
    return " ".join([*words, "..." if words[-1] == "COMMAND" else "[--key value …]"])


def display_name(action: argparse.Action) -> str:
    """Return the name of an option or argument as users type or read it."""
    if action.option_strings:
        return action.option_strings[0]
    name = str(action.metavar or action.dest)
    return {"+": f"{name} ...", "?": f"[{name}]"}.get(str(action.nargs), name)


def make_parser(description: str = "", **kwargs) -> ArgumentParser:
    """Build a parser that raises on errors, so that ``main`` prints them.

    Args:
        description: Description of the command. Commands after "Example: ", one a line, are shown at the end.
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
    for title in _GROUPS:
        parser.add_argument_group(title)
    return parser


def _fold(command: str) -> list[str]:
    """Wrap a command over lines that a shell joins."""
    lines = textwrap.wrap(
        command.strip(), _WIDTH - 4, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
    )
    return [f"{line} \\" for line in lines[:-1]] + lines[-1:]
