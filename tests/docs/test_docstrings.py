"""Every public name states its arguments with shapes and units, its result, and the errors it raises."""

from __future__ import annotations

import ast
import builtins
import inspect
import re
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass, is_dataclass
from functools import cached_property
from importlib import import_module
from typing import Any

import pytest

from tests.docs.public_names import methods, public_names

# Units that the entry of an argument or attribute of such a name states.
UNITS = {
    r"cutoff|distances?|skin|last_center|cell|pos": "Å|unit",
    r"energ(y|ies)|\w+_energy|energy_(mae|rmse|deviation)": "eV",
    r"forces|max_force|fmax|forces_(mae|rmse|deviation)": "eV/Å",
    r"stress|stress_(mae|rmse)": "eV/Å³",
    r"temperature": r"\bK\b",
    r"timestep": r"\bfs\b",
    r"duration|equilibration": r"\bps\b",
    r"pressure": "GPa",
    r"friction": "1/fs",
    r"atomref|scale": "eV|unit",
    r"seconds|timeout": r"\bs\b|[Ss]econds",
}
SHAPE = re.compile(r"`\([^`]*\)`|[Ss]hape|[Ss]calar")
REFERENCE = re.compile(r"\b([Ss]ee|[Aa]s|of)( for)? (:\w+:|``|there)|state_dict")  # to where they stand
DELEGATION = re.compile(r"For arguments and errors, see :func:`(\S+)`")
SECTIONS = "Args|Attributes|Returns|Yields|Raises|Shapes|Example|Source"


class Docstring:
    """Google-style docstring: its summary, and its sections with their entries."""

    def __init__(self, text: str):
        parts = re.split(rf"^({SECTIONS}):\s*$", inspect.cleandoc(text), flags=re.MULTILINE)
        self.summary = parts[0].strip()
        bodies = [textwrap.dedent(body.strip("\n")) for body in parts[2::2]]
        self.sections = dict(zip(parts[1::2], bodies, strict=True))

    def entries(self, *sections: str) -> dict[str, str]:
        """Return the texts of the entries by their names; ``a, b: text`` is an entry of both."""
        found = {}
        for section in sections:
            for entry in re.split(r"^(?=\S)", self.sections.get(section, ""), flags=re.MULTILINE):
                names, _, text = entry.partition(":")
                found |= dict.fromkeys(re.split(r",\s*", names.strip()), " ".join(text.split()))
        found.pop("", None)
        return found

    @property
    def result(self) -> str | None:
        """Text on the result; the summary if it begins with it."""
        stated = self.sections.get("Returns", self.sections.get("Yields"))
        return self.summary if stated is None and self.summary.startswith(("Return", "Yield")) else stated


@dataclass
class Name:
    """A public function, class, method or property."""

    path: str
    value: Any

    @cached_property
    def docstring(self) -> Docstring:
        text = inspect.getdoc(self.value) or ""
        if (function := DELEGATION.search(text)) is None:
            return Docstring(text)
        module, _, name = function[1].rpartition(".")
        return Docstring(inspect.getdoc(getattr(import_module(module), name)) or "")

    def first_line_of_result(self) -> str | None:
        """Return the first line about the result of a function, or about a property."""
        if isinstance(self.value, property):
            return self.docstring.summary.split("\n")[0]
        sections = self.docstring.sections
        return next(
            (sections[name].split("\n")[0] for name in ("Returns", "Yields") if name in sections), None
        )

    @property
    def receiver(self) -> set[str]:
        """First argument of the function that a method delegates to: the class or the model."""
        delegates = DELEGATION.search(inspect.getdoc(self.value) or "") is not None
        return {"cls", "model"} - self.parameters.keys() if delegates else set()

    @property
    def function(self) -> Any:
        """The function itself; of a class, what checks its arguments."""
        if inspect.isclass(self.value):
            return self.value.__dict__.get("__post_init__", self.value.__init__)
        return self.value.fget if isinstance(self.value, property) else self.value

    @property
    def parameters(self) -> dict[str, str]:
        """Annotations of the parameters as they are written, by names with ``*`` and ``**``."""
        is_foreign = inspect.isclass(self.value) and not is_ours(self.value.__init__)
        if isinstance(self.value, property) or is_foreign:
            return {}
        stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
        parameters = inspect.signature(self.value).parameters.items()
        return {stars.get(p.kind, "") + name: str(p.annotation) for name, p in parameters if name != "self"}

    @property
    def returns(self) -> str:
        """Annotation of the result as it is written."""
        return "" if inspect.isclass(self.value) else str(self.function.__annotations__.get("return", ""))

    @property
    def entries(self) -> dict[str, str]:
        """Texts on arguments and attributes; a dataclass has those of its bases, too."""
        bases = self.value.__mro__[1:] if is_dataclass(self.value) else ()
        inherited = [Docstring(base.__doc__ or "") for base in bases if is_dataclass(base)]
        own = self.docstring.entries("Args", "Attributes")
        return {name: text for each in inherited for name, text in each.entries("Attributes").items()} | own

    def described(self) -> list[tuple[str, str, str]]:
        """Return name, annotation and text of each argument, attribute, and of the result."""
        entries = self.docstring.entries("Args", "Attributes")
        annotations = getattr(self.value, "__annotations__", {}) | self.parameters
        is_property = isinstance(self.value, property)
        result = self.docstring.summary if is_property else self.docstring.result or ""
        return [(name, str(annotations.get(name, "")), text) for name, text in entries.items()] + [
            ("result", self.returns, result)
        ]

    @property
    def raises(self) -> set[str]:
        """Names of the exceptions that its own body raises."""
        if not is_ours(self.function) or self.function.__code__.co_filename == "<string>":
            return set()
        (function,) = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(self.function)))).body
        inner = [
            node for node in ast.walk(function) if isinstance(node, ast.FunctionDef) and node != function
        ]
        nested = {node for each in inner for node in ast.walk(each)}
        statements = [
            node.exc for node in ast.walk(function) if isinstance(node, ast.Raise) and node not in nested
        ]
        called = [node.func if isinstance(node, ast.Call) else node for node in statements]
        names = {node.id for node in called if isinstance(node, ast.Name) and node.id[0].isupper()}
        return names - {"NotImplementedError"}


def is_ours(function: Any) -> bool:
    """Return whether a function is written in this package, or generated for a dataclass of it."""
    return getattr(function, "__module__", "").startswith("pyg_schnet") and hasattr(function, "__code__")


def documented() -> list[Name]:
    """Return all public functions, classes and methods, each once."""
    found = {}
    for path, value in public_names().items():
        if inspect.isclass(value) or inspect.isroutine(value):
            found.setdefault(id(value), Name(path, value))
        if inspect.isclass(value):
            for name, method in methods(value).items():
                own = method if isinstance(method, property) else getattr(value, name)
                function = getattr(own, "__func__", own)
                found.setdefault((id(function), inspect.getdoc(own)), Name(f"{path}.{name}", own))
    return list(found.values())


NAMES = documented()


def test_every_public_name_has_a_docstring():
    fail_for(name.path for name in NAMES if not name.docstring.summary)


def test_every_argument_is_documented():
    fail_for(
        f"{name.path}: {argument}"
        for name in NAMES
        for argument in name.parameters.keys() - name.entries.keys()
    )


def test_no_argument_is_documented_that_does_not_exist():
    fail_for(
        f"{name.path}: {argument}"
        for name in NAMES
        for argument in name.docstring.entries("Args").keys() - name.parameters.keys() - name.receiver
    )


def test_every_exception_that_a_function_raises_itself_is_documented():
    fail_for(
        f"{name.path}: {error}"
        for name in NAMES
        for error in name.raises
        if not bases(error) & name.docstring.entries("Raises").keys()
    )


def test_every_tensor_has_a_shape():
    fail_for(
        f"{name.path}: {argument}"
        for name in NAMES
        for argument, annotation, text in name.described()
        if has_plain_tensor(annotation) and not (SHAPE.search(text) or REFERENCE.search(text))
    )


def test_every_quantity_has_a_unit():
    fail_for(
        f"{name.path}: {argument} in {unit}"
        for name in NAMES
        for argument, annotation, text in name.described()
        for pattern, unit in UNITS.items()
        if re.fullmatch(pattern, argument) and re.search("float|Tensor|ndarray", annotation)
        if not (re.search(unit, text) or REFERENCE.search(text))
    )


def test_every_result_is_documented():
    fail_for(
        name.path
        for name in NAMES
        if re.match(r"tuple|dict|list|Iterator|Tensor|\w+\[Tensor|float|int|str", name.returns)
        and not isinstance(name.value, property)
        and name.docstring.result is None
    )


def test_no_sentence_is_read_as_a_type():
    """Sphinx takes what stands before a colon in the first line of a result or a property for its type."""
    fail_for(
        f"{name.path}: {first}"
        for name in NAMES
        if (first := name.first_line_of_result()) is not None
        and ":" in re.sub(r":\w+:`[^`]*`|``[^`]*``|`[^`]*`", "", first)
    )


def test_every_equation_has_a_source():
    fail_for(
        name.path
        for name in NAMES
        if inspect.isclass(name.value)
        and ".. math::" in name.docstring.summary
        and "Source" not in name.docstring.sections
    )


def fail_for(missing: Iterable[str]) -> None:
    """Fail with a line for each public name that lacks something."""
    lines = sorted(missing)
    assert not lines, "\n" + "\n".join(lines)


def bases(error: str) -> set[str]:
    """Return the names that document an exception: its own and those of its bases but ``Exception``."""
    cls = getattr(builtins, error, ValueError)
    return {error, *(base.__name__ for base in cls.__mro__[:-3])}


def has_plain_tensor(annotation: str) -> bool:
    """Return whether an annotation holds a tensor without the shape that ``Float[Tensor, "…"]`` has."""
    return re.search(r"(?<!\w)Tensor\b(?!, ['\"])", annotation) is not None and "bool" not in annotation


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        (
            "Compute.\n\nArgs:\n    a: One.\n    b: Two,\n        or three.",
            {"a": "One.", "b": "Two, or three."},
        ),
        ("Compute.\n\nArgs:\n    a, b: Both.\n\nReturns:\n    c: d", {"a": "Both.", "b": "Both."}),
        ("Compute.", {}),
    ],
)
def test_entries_of_a_docstring_are_read(text, entries):
    assert Docstring(text).entries("Args") == entries
