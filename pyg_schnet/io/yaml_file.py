"""YAML files that hold plain values.

Tags, which create objects, and aliases, which turn kilobytes into gigabytes, are rejected; size and
nesting are bounded.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import yaml

_MAX_BYTES = 2**20
_MAX_DEPTH = 20  # sections within sections
# What PyYAML raises, also for numbers with thousands of digits, names that are lists, and deep nesting.
_YAML_ERRORS = (yaml.YAMLError, ValueError, RecursionError, OverflowError, TypeError, AttributeError)


def read_yaml(path: Path, max_bytes: int = _MAX_BYTES) -> Any:
    """Read a YAML file that holds plain values.

    Args:
        path: The file.
        max_bytes: Largest size of the file, in bytes.

    Raises:
        ValueError: If the file is not YAML, is too large, has tags or aliases, or a name twice in a section.
    """
    if not path.is_file() or path.stat().st_size > max_bytes:
        raise ValueError(f"{path}: must be a YAML text of at most {max_bytes:,} bytes, got something else")
    try:
        text = path.read_text(encoding="utf-8")
        _check_events(text)
        loader = _Loader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except UnicodeDecodeError:
        raise ValueError(f"{path}: must be YAML, got a file that is not text") from None
    except _YAML_ERRORS as error:
        raise ValueError(f"{path}: must be YAML: {str(error)[:1000]}") from None


def _check_events(text: str) -> None:
    """Raise if the text has aliases or is nested too deeply, before any value is constructed."""
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError("it must have no aliases (*name); write the values out")
        if depth > _MAX_DEPTH:
            raise yaml.YAMLError(f"it must be nested at most {_MAX_DEPTH} levels deep")


class _Loader(yaml.SafeLoader):
    """A loader that rejects duplicate names in a section, of which PyYAML silently keeps the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        names = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        for name, times in names.items():
            if times > 1:
                raise yaml.YAMLError(f"it must have each name once in a section, got `{name[:100]}` twice")
        return super().construct_mapping(node, deep)
