"""All messages of the package's errors and warnings, from its source, and the explanations that quote them.

Explanations are entries of the page of troubleshooting::

    `has no energy that is recognized`
    : The names of the energies are unusual. Name them with `--data.energy_key`.

A term may hold several quotations, and ``…`` in them stands for any text.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).parents[2] / "pyg_schnet"
PAGE = Path(__file__).parents[1] / "troubleshooting.md"
_REPORTS = ("cli.help", "cli.pictures", "cli.select", "datasets.report.rendering", "nn.schnet")  # no messages
_FEWEST_WORDS = 4  # of a text that is returned or yielded; shorter ones are names and units
_FEWEST_LETTERS = 8  # besides placeholders
_REASONS = {"advice", "hint", "message", "note", "reason", "text", "why"}  # variables with parts of messages
GROUPS = (  # what the user was doing, and the modules whose messages appear then; the first that matches
    ("Command lines", ("cli",)),
    ("Units and labels", ("io.units", "io.formats.labels", "io.formats.stated_units")),
    ("Files of structures", ("io.formats", "io.compression", "datasets.atoms", "datasets.structure_file")),
    ("Plausibility of data", ("datasets.report",)),
    ("Published data sets", ("datasets", "io.remote")),
    ("Training", ("training", "io.yaml_file")),
    ("Checkpoints, ensembles and errors", ("potentials",)),
    ("Checks of a model", ("checks",)),
    ("Pictures and reports", ("plots", "report")),
    ("Dynamics, relaxation and engines", ("simulation",)),
    ("Prediction of files", ("prediction",)),
    ("Output files", ("io",)),
    ("Layers, networks and graphs", ("nn", "graph", "loader", "transforms")),
    ("Models of PyG and SchNetPack", ("migration",)),
    ("Compilation and kernels", ("compile", "kernels")),
    ("Other", ("",)),
)


class Message(NamedTuple):
    """A message of the package.

    Attributes:
        text: Its text, with ``…`` for values.
        kind: Class of the error, ``"warning"``, or ``""`` for a part of a message.
        module: Module that makes it, without the package's name.
    """

    text: str
    kind: str
    module: str


class Explanation(NamedTuple):
    """An entry of the page of troubleshooting.

    Attributes:
        quotations: Quoted words of messages.
        section: Heading above it.
    """

    quotations: tuple[str, ...]
    section: str


def collect_messages(package: Path = PACKAGE) -> list[Message]:
    """Return all messages in the source of a package, in the order of its modules."""
    found: dict[str, Message] = {}
    for path in sorted(package.rglob("*.py")):
        module = ".".join(path.relative_to(package).with_suffix("").parts).removesuffix(".__init__")
        tree = ast.parse(path.read_text(encoding="utf-8"))
        constants = _constants(tree)
        for node in ast.walk(tree):
            for kind, expression in _expressions(node):
                if not kind and module in _REPORTS:
                    continue
                text = re.sub("…{2,}", "…", " ".join(_text(expression, constants).split()))
                if len(re.sub(r"[\W\d_]", "", text)) >= _FEWEST_LETTERS:
                    found.setdefault(text, Message(text, kind, module))
    return list(found.values())


def read_explanations(page: Path = PAGE) -> list[Explanation]:
    """Return the entries of the page of troubleshooting: lines of quotations, followed by a definition."""
    section, found = "", []
    lines = page.read_text(encoding="utf-8").splitlines()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if line.startswith("#"):
            section = line.lstrip("# ")
        elif line.startswith("`") and following.startswith(": "):
            quotations = (text.strip() for _, text in re.findall(r"(`+)(.+?)\1(?!`)", line))
            found.append(Explanation(tuple(quotations), section))
    return found


def quotes(quotation: str, message: str) -> bool:
    """Return whether a message contains a quotation; ``…`` in the quotation stands for any text."""
    pattern = ".*".join(re.escape(part.strip()) for part in quotation.split("…"))
    return re.search(pattern, message) is not None


def _constants(tree: ast.Module) -> dict[str, str]:
    """Return the texts that a module assigns to names at its top level."""
    return {
        node.targets[0].id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    }


def _expressions(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Yield kind and expression of texts in a node of which messages are made."""
    if isinstance(node, ast.Call):
        name = _name(node.func)
        if name.endswith("Error") or name in ("Unsupported", "_unrepresentable"):
            kind = name.lstrip("_") if name.endswith("Error") else ""
            yield from ((kind, part) for argument in node.args for part in _alternatives(argument))
        elif name in ("warn", "warning"):
            yield from (("warning", argument) for argument in node.args[:1])
        elif name == "line":  # of a report of training
            yield from (("", argument) for argument in node.args if _words(argument) >= _FEWEST_WORDS)
        return
    is_reason = isinstance(node, ast.Assign) and _name(node.targets[0]) in _REASONS
    value = node.value if is_reason or isinstance(node, ast.Return | ast.Yield) else None
    if value is not None:
        yield from (("", part) for part in _alternatives(value) if _words(part) >= _FEWEST_WORDS)


def _alternatives(expression: ast.expr) -> Iterator[ast.expr]:
    """Yield both sides of a condition, and the arguments of a function that builds a message."""
    if isinstance(expression, ast.IfExp):
        yield from _alternatives(expression.body)
        yield from _alternatives(expression.orelse)
    elif isinstance(expression, ast.Call) and _name(expression.func).startswith("_"):
        yield from expression.args
    else:
        yield expression


def _name(function: ast.expr) -> str:
    return getattr(function, "attr", getattr(function, "id", ""))


def _words(expression: ast.expr) -> int:
    return len(re.findall(r"[a-z]+", _text(expression, {})))


def _text(expression: ast.expr, constants: dict[str, str]) -> str:
    """Return the text of an expression, with ``…`` for all that is computed."""
    if isinstance(expression, ast.Constant):
        text = expression.value if isinstance(expression.value, str) else ""
        return re.sub(r"%(?:[sdrg]|\.\d+[fg])", "…", text)
    if isinstance(expression, ast.JoinedStr):
        return "".join(_text(part, constants) for part in expression.values)
    if isinstance(expression, ast.FormattedValue):
        return _text(expression.value, constants) or "…"
    if isinstance(expression, ast.BinOp) and isinstance(expression.op, ast.Add):
        return _text(expression.left, constants) + _text(expression.right, constants)
    if isinstance(expression, ast.IfExp):
        return _text(expression.body, constants) or _text(expression.orelse, constants)
    if isinstance(expression, ast.Name):
        return constants.get(expression.id, "…")
    return "…"


def group_of(module: str) -> str:
    """Return what a user was doing when a module's message appeared."""
    parts = module.split(".")
    for title, prefixes in GROUPS:
        for prefix in prefixes:
            own = prefix.split(".") if prefix else []
            if parts[: len(own)] == own:
                return title
    raise AssertionError(module)
