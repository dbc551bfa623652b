"""No module of the package loads pickles, runs texts as code or starts programs that a file could name."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "pyg_schnet"
MODULES = sorted(PACKAGE.rglob("*.py"))
NEVER = {
    *(
        "pickle.load",
        "pickle.loads",
        "pickle.Unpickler",
        "dill.load",
        "dill.loads",
        "joblib.load",
        "marshal.loads",
    ),
    *("yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load", "yaml.UnsafeLoader", "yaml.Loader"),
    *("os.system", "os.popen", "shelve.open", "eval", "exec", "compile", "__import__", "runpy.run_path"),
    *(
        "torch.jit.load",
        "torch.package.PackageImporter",
        "torch.hub.load",
        "pd.read_pickle",
        "torch.export.load",
    ),
}
# Only our own programs are compiled and run: they are made from the model's operations.
OURS = {("compile/python_backend.py", "exec"), ("compile/python_backend.py", "compile")}


def dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def calls(tree: ast.AST) -> list[ast.Call]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


def argument(call: ast.Call, name: str) -> object:
    return next((getattr(k.value, "value", ...) for k in call.keywords if k.arg == name), None)


def wrong_calls(source: str) -> list[str]:
    found = []
    for call in calls(ast.parse(source)):
        name = dotted(call.func)
        if name in NEVER:
            found.append(name)
        if name in ("torch.load", "np.load", "numpy.load"):
            safe = argument(call, "weights_only") is True or argument(call, "allow_pickle") is False
            found += [] if safe else [name]
        if argument(call, "allow_pickle") not in (None, False) or argument(call, "shell") not in (
            None,
            False,
        ):
            found.append(name)
    return found


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_loads_pickles_or_runs_texts(module):
    place = module.relative_to(PACKAGE).as_posix()
    found = [name for name in wrong_calls(module.read_text(encoding="utf-8")) if (place, name) not in OURS]
    assert not found


@pytest.mark.parametrize(
    "source",
    [
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "pickle.load(file)",
        "yaml.load(text, yaml.Loader)",
        "eval(text)",
        "subprocess.run(text, shell=True)",
    ],
)
def test_the_scan_finds_what_it_looks_for(source):
    assert wrong_calls(source)
