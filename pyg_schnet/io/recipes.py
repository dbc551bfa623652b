"""Recipes: YAML files of training options, which come with the package or are the user's."""

from __future__ import annotations

from pathlib import Path

from pyg_schnet.io.spelling import nearest

_INSTALLED = Path(__file__).parents[1] / "datasets" / "recipes"  # filled by the wheel, see pyproject.toml
_CHECKOUT = Path(__file__).parents[2] / "datasets"


def named_recipes() -> dict[str, Path]:
    """Return the recipes that come with the package, by name."""
    folder, pattern = (_INSTALLED, "*/*.yaml") if _INSTALLED.is_dir() else (_CHECKOUT, "*/recipes/*.yaml")
    return {path.stem: path for path in sorted(folder.glob(pattern))}


def find_recipe(name: str) -> Path:
    """Return the file of a recipe, given by its path or, if it comes with the package, by its name.

    Args:
        name: A file, ``"own_file"``, or the path of the recipe in a clone of the repository,
            ``"datasets/md17/recipes/own_file.yaml"``, whatever the working directory.

    Raises:
        FileNotFoundError: If there is neither; the message lists the names.
    """
    path = Path(name)
    if path.is_file():
        return path
    known = named_recipes()
    in_clone = path.parts[:1] == ("datasets",) and path.parts[2:3] == ("recipes",)
    if (path.name == name or in_clone) and path.stem in known and path.suffix in ("", ".yaml"):
        return known[path.stem]
    raise FileNotFoundError(
        f"{name}: no such recipe; pass a YAML file, or one of {', '.join(known)}.{nearest(path.stem, known)}"
    )


def read_title(recipe: Path) -> str:
    """Return the first line of a recipe, a comment that states what it trains, or ``""`` without one.

    Args:
        recipe: A YAML file.
    """
    with recipe.open(encoding="utf-8") as file:
        line = file.readline().strip()
    return line.lstrip("# ") if line.startswith("#") else ""


def data_set_of(recipe: Path) -> str:
    """Return the name of the data set of a recipe that comes with the package, such as ``"qm9"``.

    Args:
        recipe: One of :func:`named_recipes`.
    """
    folder = recipe.parent  # qm9/recipes in a clone, recipes/qm9 in the wheel
    return folder.parent.name if folder.name == "recipes" else folder.name
