"""Files that are replaced at once or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Give a path beside a file to write to, which takes the file's place when all is written.

    So the file is whole at any time, whatever ends the process. The path has the file's ending, by which
    writers tell formats; one that a killed process left is removed.

    Args:
        path: The file, which may be there or not.

    Raises:
        OSError: If it cannot be written, as on a full disk, with its name and the reason.
    """
    path = Path(path)
    part = path.with_name(f".part.{path.name}")
    try:
        part.unlink(missing_ok=True)
        try:
            yield part
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(
            f"{path}: cannot be written ({reason}); what was there before is left as it was. Make room or "
            "choose another folder"
        ) from error
