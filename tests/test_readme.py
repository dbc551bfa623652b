"""The README keeps its promises."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_ten_lines_run(monkeypatch):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"<!-- run by tests/test_readme.py -->\n```python\n(.*?)```", text, flags=re.DOTALL)
    monkeypatch.chdir(ROOT)
    # Two batches tell as much as all: the loop ends by the data running out.
    code = code.replace("dataset = AtomsDataset(", "dataset = (lambda path: AtomsDataset(path=path)[:64])(")
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["out"]["energy"].shape == (32,)
    assert names["out"]["forces"].shape == (288, 3)


def test_the_layout_of_the_readme_exists():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for path in re.findall(r"(?:datasets|examples|tests)/[\w/.]+\.\w+", text):
        assert (ROOT / path).is_file(), path
