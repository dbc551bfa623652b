"""Where the time of a step goes: operators, and groups of them.

    python benchmarks/profile.py [--task aspirin-train] [--threads 1] [--steps 20] [--compile]

It profiles our implementation with ready-made edges (--search: with its own), by its public interface. The
profiler slows small operators down: shares tell more than times, and speed.py tells the time.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "profile":
    # A script of this folder is running, and Python's `cProfile`, which torch imports, takes this file for
    # the standard library's module of the same name. Give it that.
    import importlib.util
    import os

    spec = importlib.util.spec_from_file_location("profile", Path(os.__file__).with_name("profile.py"))
    assert spec is not None
    assert spec.loader is not None
    sys.modules["profile"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["profile"])
else:
    if __name__ == "__main__":
        sys.path.pop(0)  # this folder, for the same reason
        sys.path.insert(0, str(Path(__file__).parents[1]))
    from benchmarks.operators import main

if __name__ == "__main__":
    main()
