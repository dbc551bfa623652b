"""Verified downloads of published files, with retries, resumption and advice if no source is available."""

from __future__ import annotations

import errno
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import BinaryIO

import pooch
import requests
from rich.progress import BarColumn, DownloadColumn, TransferSpeedColumn
from urllib3.exceptions import HTTPError

from pyg_schnet.io.atomic import rename_durably
from pyg_schnet.io.locks import locked
from pyg_schnet.io.progress import bar

_LABELS = {"sha256": "SHA-256", "md5": "MD5"}
_BACKOFF = 0.5  # seconds before the first repetition, doubled each time
_NO_SPACE = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
# Identity: the published bytes, also from servers that treat .gz files as an encoding.
_HEADERS = {"User-Agent": "pyg-schnet", "Accept-Encoding": "identity"}


@dataclass(frozen=True)
class RemoteFile:
    """A published file.

    Attributes:
        name: Its name in the raw folder.
        urls: Addresses, tried in this order; none if it must be placed there manually.
        hash: ``"sha256:…"`` or ``"md5:…"``; ``None`` where none is published.
        size: In bytes, where known.

    Raises:
        ValueError: If the name has folders, or an address or the checksum is of another form.
    """

    name: str
    urls: tuple[str, ...]
    hash: str | None = None
    size: int | None = None

    def __post_init__(self):
        if self.name in ("", "..") or PureWindowsPath(self.name).name != self.name:
            raise ValueError(f"`name` must be a file name without folders, got {self.name!r}")
        for url in self.urls:
            if not re.fullmatch(r"https?://\S+", url):
                raise ValueError(f"`urls` must begin with http:// or https://, got {url!r}")
        if self.hash is not None and not re.fullmatch(r"sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}", self.hash):
            raise ValueError(f"`hash` must be 'sha256:…' or 'md5:…' in small hexadecimals, got {self.hash!r}")


class DownloadError(RuntimeError):
    """No source provided the file; the message lists the reasons and how to continue manually."""


class _Unavailable(Exception):
    """The source does not provide the file."""


class _Interrupted(Exception):
    """The transfer was interrupted and may be repeated."""


def verify(path: str | os.PathLike, file: RemoteFile) -> None:
    """Compare a file with its checksum, or with its size where no checksum is published.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If its checksum or size differs.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if difference := _difference(path, file):
        raise ValueError(f"{path}: {difference}; delete the file and download again")


def _difference(path: Path, file: RemoteFile) -> str | None:
    """Return how a file differs from the published one; ``None`` if it does not."""
    if file.hash is not None:
        algorithm, expected = file.hash.split(":")
        found = pooch.file_hash(path, alg=algorithm)
        difference = f"{_LABELS[algorithm]} is {found[:12]}…, expected {expected[:12]}…"
    else:
        found = path.stat().st_size
        expected = found if file.size is None else file.size
        difference = f"has {found:,} bytes, expected {expected:,}"
    return None if found == expected else difference


def download(
    file: RemoteFile,
    folder: str | os.PathLike,
    *,
    timeout: float = 10.0,
    retries: int = 3,
    progress: bool | None = None,
) -> Path:
    """Return the path of the complete, verified file in ``folder``; download it if it is absent.

    An existing file is verified. A partial file of an interrupted transfer is kept as ``NAME.part`` and
    continued by this call or the next. If two processes download the same file, one waits. No connection is
    made if the environment variable ``PYG_SCHNET_OFFLINE`` is set to anything but ``0``.

    Args:
        file: File to download.
        folder: Target folder, created if necessary.
        timeout: Seconds to wait for a source before the next one is tried.
        retries: Repetitions for each source, after interrupted connections and HTTP status 429 and 5xx.
        progress: ``False`` shows no progress bar; by default there is one on terminals.

    Raises:
        ValueError: If another file of this name exists, or an argument is wrong.
        DownloadError: If no source provides the file, or downloads are forbidden.
        OSError: If the file cannot be written.
    """
    if not timeout > 0 or retries < 0:
        raise ValueError(f"`timeout` must be positive, `retries` not negative, got {timeout} and {retries}")
    folder = Path(folder).absolute()
    path = folder / file.name
    if path.exists():
        verify(path, file)
        return path
    offline = os.environ.get("PYG_SCHNET_OFFLINE", "") not in ("", "0")
    if offline or not file.urls:
        reason = "PYG_SCHNET_OFFLINE is set, which forbids downloads" if offline else "it has no address"
        raise DownloadError(_manual_advice(file, folder, f"is not there, and {reason}", file.urls))
    folder.mkdir(parents=True, exist_ok=True)
    with locked(path, wait=True), _display(file.name, progress) as show:
        if not path.exists():  # otherwise another process was faster
            _from_sources(_Transfer(file, path, timeout, retries, show))
    return path


def _manual_advice(file: RemoteFile, folder: Path, problem: str, sources: Sequence[str]) -> str:
    size = "" if file.size is None else f" of {file.size:,} bytes"
    checksum = "" if file.hash is None else f" with {file.hash}"
    advice = f"place a file{size}{checksum} into {folder} manually"
    return "\n  ".join([f"{file.name}: {problem}", *sources, advice])


@contextmanager
def _display(name: str, progress: bool | None) -> Iterator[Callable[[int, int | None], None]]:
    """Show a progress bar on terminals."""
    columns = "{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn()
    with bar(*columns, hidden=progress is False) as shown:
        task = shown.add_task(name, total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)


def _from_sources(transfer: _Transfer) -> None:
    reasons = []
    for url in transfer.file.urls:
        try:
            _from_source(transfer, url)
            return
        except (_Unavailable, _Interrupted) as error:
            reasons.append(f"{url}: {error}")
    raise DownloadError(
        _manual_advice(transfer.file, transfer.path.parent, "no source is available", reasons)
    )


def _from_source(transfer: _Transfer, url: str, again: bool = False) -> None:
    """Receive, verify and rename; repeat from the start if a continued file has a wrong checksum.

    The partial file is verified before it is renamed, so that it can be resumed after a kill.
    """
    transfer.receive(url)
    difference = _difference(transfer.part, transfer.file)
    transfer.origin.unlink(missing_ok=True)
    if difference is None:
        rename_durably(transfer.part, transfer.path)
        return
    transfer.part.unlink()
    if again or not transfer.resumed:
        raise _Unavailable(f"sends another file: {difference}")
    _from_source(transfer, url, again=True)


@dataclass
class _Transfer:
    """Transfer that continues the partial file of an interrupted connection."""

    file: RemoteFile
    path: Path
    timeout: float
    retries: int
    show: Callable[[int, int | None], None]

    def __post_init__(self):
        self.part = self.path.with_name(f"{self.path.name}.part")
        self.origin = self.path.with_name(f"{self.path.name}.part.origin")  # URL and validator
        self.resumed = False  # whether the content begins with an earlier partial file
        for path in (self.part, self.origin):
            if path.is_symlink():  # would redirect the content elsewhere
                path.unlink()

    def receive(self, url: str) -> None:
        """Receive the content of a URL into the partial file."""
        self.resumed = self.file.hash is not None and self._received() == self.file.size
        for attempt in range(0 if self.resumed else self.retries + 1):
            try:
                self._receive(url)
                break
            except _Interrupted:
                if attempt == self.retries:
                    raise
                time.sleep(_BACKOFF * 2**attempt)

    def _received(self) -> int:
        return self.part.stat().st_size if self.part.is_file() else 0

    def _receive(self, url: str, anew: bool = False) -> None:
        """Append what is missing, or write everything if the source does not support ranges."""
        start, headers = (0, _HEADERS) if anew else self._request(url)
        with self._get(url, headers) as response:
            status = response.status_code
            if status == 200 or _continues(response, start, headers):
                self._write(url, response, start if status == 206 else 0)
                return
            if not (start and status in (206, 416)):
                error = _Interrupted if status == 429 or status >= 500 else _Unavailable
                raise error(f"HTTP status {status}")
        self._receive(url, anew=True)

    def _request(self, url: str) -> tuple[int, dict[str, str]]:
        """Return the position to continue at, and the request headers."""
        start = self._received()
        origin = self.origin.read_text("utf-8", errors="replace") if self.origin.is_file() else ""
        address, _, validator = origin.partition("\n")
        same = address == url and validator != ""
        if start in (0, self.file.size) or not (same or self.file.hash):
            return 0, _HEADERS  # without a checksum, mixed content would go unnoticed
        headers = {**_HEADERS, "Range": f"bytes={start}-"}
        return start, {**headers, "If-Range": validator} if same else headers

    def _get(self, url: str, headers: dict[str, str]) -> requests.Response:
        try:
            return requests.get(url, headers=headers, stream=True, timeout=self.timeout)
        except requests.exceptions.Timeout:
            raise _Unavailable(f"does not answer within {self.timeout:g} s") from None
        except requests.exceptions.ConnectionError as error:
            raise _Interrupted(getattr(error.args[0], "reason", error)) from None
        except requests.exceptions.RequestException as error:
            raise _Unavailable(error) from None

    def _write(self, url: str, response: requests.Response, start: int) -> None:
        """Write the response, which begins at ``start``."""
        rest = response.raw.length_remaining
        total = self.file.size if rest is None else start + rest
        if self.file.size not in (None, total):
            raise _Unavailable(f"announces {total:,} bytes")
        if self.file.hash is None and response.headers.get("Content-Type", "").startswith("text/html"):
            raise _Unavailable("answers with a web page")
        self.resumed = start > 0
        try:
            with self.part.open("ab" if start else "wb") as stream:
                if not start:
                    self.origin.write_text(f"{url}\n{_validator(response)}", "utf-8")
                self._copy(response, stream, start, total)
        except OSError as error:
            if error.errno not in _NO_SPACE:
                raise
            raise OSError(error.errno, self._no_space(total)) from None

    def _no_space(self, total: int | None) -> str:
        folder = self.path.parent
        needed = "unknown" if total is None else f"{total - self._received():,}"
        free = f"{shutil.disk_usage(folder).free:,}"
        return f"{self.path.name}: no space in {folder} (bytes needed: {needed}, free: {free}); make room"

    def _copy(self, response: requests.Response, stream: BinaryIO, done: int, total: int | None) -> None:
        try:
            for chunk in response.raw.stream(2**16, decode_content=False):
                done += len(chunk)
                if total is not None and done > total:
                    stream.truncate(0)
                    raise _Unavailable(f"sends more than {total:,} bytes")
                stream.write(chunk)
                self.show(done, total)
        except HTTPError as error:
            raise _Interrupted(f"was interrupted after {done:,} bytes ({type(error).__name__})") from None
        if total is not None and done < total:
            raise _Interrupted(f"ended after {done:,} bytes")


def _continues(response: requests.Response, start: int, headers: Mapping[str, str]) -> bool:
    """Return whether the response is the requested rest; not all servers respect If-Range."""
    content = re.fullmatch(rf"bytes {start}-(\d+)/(\d+)", response.headers.get("Content-Range", ""))
    to_the_end = content is not None and int(content[1]) + 1 == int(content[2])
    same = _validator(response) in ("", headers.get("If-Range", _validator(response)))
    return response.status_code == 206 and to_the_end and same


def _validator(response: requests.Response) -> str:
    """Return the validator of the content for If-Range: a strong ETag, or the date."""
    etag = response.headers.get("ETag", "W/")
    return response.headers.get("Last-Modified", "") if etag.startswith("W/") else etag
