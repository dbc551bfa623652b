"""Pretrained models by name, by address or from a repository of Hugging Face."""

from __future__ import annotations

import os
import re
from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from pyg_schnet.io.hashes import hash_file
from pyg_schnet.io.spelling import nearest
from pyg_schnet.io.toml_file import read_toml
from pyg_schnet.potentials.model_card import ModelCard

GROUP = "pyg_schnet.models"  # entry points of packages with models
_CHECKOUT = Path(__file__).parents[2] / "models" / "pyg_schnet_models"
_REPOSITORY = re.compile(r"hf:([\w.-]+/[\w.-]+?)(?:@([\w.-]+))?(?:/([\w./-]+))?(?:#sha256=([0-9a-f]{64}))?")
_INSTALL = "pip install ./models in a clone of pyg_schnet"


def model_folders() -> list[Path]:
    """Return the folders with pretrained models: those of a clone, and of installed packages.

    A package names itself by an entry point of the group ``pyg_schnet.models``. It is found without being
    imported, so that none of its code runs.
    """
    folders = [_CHECKOUT]
    for entry in entry_points(group=GROUP):
        spec = None if "." in entry.value else find_spec(entry.value)
        folders += [Path(place) for place in (spec and spec.submodule_search_locations) or ()]
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]


@cache
def named_models() -> dict[str, Path]:
    """Return the cards of the pretrained models by name, sorted; a clone's models precede installed ones."""
    found: dict[str, Path] = {}
    for folder in model_folders():
        for card in sorted(folder.glob("*.toml")):
            found.setdefault(card.stem, card)
    return dict(sorted(found.items()))


def read_model_card(name: str) -> ModelCard:
    """Read the card of a pretrained model.

    Args:
        name: One of :func:`named_models`.

    Raises:
        FileNotFoundError: If there is no such model.
        ValueError: If the card is wrong, with file and key.
    """
    known = named_models()
    if name not in known:
        raise _unknown(name)
    return read_toml(ModelCard, known[name])


def find_model(name: str | os.PathLike) -> str:
    """Return the path of the file that a model's name stands for; an existing path stands for itself.

    Args:
        name: A path; the name of a pretrained model, ``"qm9-u0"``; an address with the SHA-256 of the file,
            ``"https://…/model.safetensors#sha256=…"``; or a file of Hugging Face,
            ``"hf:owner/repository[@revision][/file][#sha256=…]"``, by default its ``model.safetensors``.
            Downloads are kept in the user's cache.

    Raises:
        DownloadError: If a file cannot be downloaded.
        FileNotFoundError: If it is neither a path nor a model; the message has the nearest name.
        ValueError: If an address has no hash or another form, or a file differs from its hash.
    """
    text = os.fspath(name)
    if Path(text).exists():
        return text
    if is_address(text):
        return _download(text)
    if card := named_models().get(text):
        return _verified(card)
    if _is_path(text):
        return text  # whoever opens it reports that it does not exist
    raise _unknown(text)


def is_address(text: str) -> bool:
    """Return whether a text is an address or a file of Hugging Face."""
    return text.startswith(("https://", "http://", "hf:"))


def _is_path(text: str) -> bool:
    return any(mark in text for mark in ("/", os.sep)) or text.endswith((".safetensors", ".json", ".pt"))


def _unknown(name: str) -> FileNotFoundError:
    known = named_models()
    if not known:
        return FileNotFoundError(
            f"{name}: no such checkpoint or run, and no pretrained models are installed; {_INSTALL} "
            "installs them"
        )
    return FileNotFoundError(
        f"{name}: no such checkpoint, run or pretrained model; `pyg-schnet models` lists the models."
        f"{nearest(name, known)}"
    )


def _verified(card: Path) -> str:
    """Return the path of the weights beside a card, whose hash it states."""
    weights = card.with_suffix(".safetensors")
    if not weights.is_file() or hash_file(weights) != read_toml(ModelCard, card).sha256:
        raise ValueError(
            f"{weights}: must be the file of its card, got none or another; {_INSTALL} installs it"
        )
    return str(weights)


def _download(address: str) -> str:
    """Return the path of a downloaded file, in a folder of the cache for each address."""
    import pooch  # slow to import, as is requests

    from pyg_schnet.io.remote.download import RemoteFile, download

    url, digits = _parse_repository(address) if address.startswith("hf:") else _parse_url(address)
    cache = Path(os.environ.get("PYG_SCHNET_CACHE") or pooch.os_cache("pyg_schnet")) / "models"
    place = digits[:16] or re.sub(r"[^\w.-]+", "_", url.partition("://")[2].rpartition("/")[0])
    file = RemoteFile(Path(urlsplit(url).path).name, (url,), f"sha256:{digits}" if digits else None)
    return str(download(file, cache / place))


def _parse_url(address: str) -> tuple[str, str]:
    url, _, fragment = address.partition("#")
    if not (match := re.fullmatch(r"sha256=([0-9a-f]{64})", fragment)):
        raise ValueError(
            f"{address}: an address must end in the hash of its file, {url}#sha256=… with 64 small "
            "hexadecimal digits; `sha256sum` computes it"
        )
    return url, match[1]


def _parse_repository(address: str) -> tuple[str, str]:
    if not (match := _REPOSITORY.fullmatch(address)):
        raise ValueError(
            f"{address}: must be hf:owner/repository, with @revision, /file and #sha256=… if needed"
        )
    repository, revision, file, digits = match.groups()
    host = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"  # as for huggingface_hub
    url = f"{host.rstrip('/')}/{repository}/resolve/{revision or 'main'}/{file or 'model.safetensors'}"
    return url, digits or ""
