"""Ways to hurt a file: bits at random, and changes that keep its outer form so that they come further in.

All choices come from a ``random.Random``; the same one gives the same file.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import re
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

_NUMBERS = (
    *(
        "0",
        "-1",
        "1",
        "2",
        "255",
        "65536",
        "-2147483649",
        "4294967296",
        "9223372036854775807",
        "1" + "0" * 30,
    ),
    *(
        "nan",
        "inf",
        "-inf",
        "1e400",
        "1e-400",
        "0x10",
        "1_0",
        "١",
        "",
        "9" * 5000,
        "1.5",
        "true",
        "null",
        "''",
    ),
)
_TEXTS = (
    "",
    "a",
    "\x00",
    "é",
    "😀",
    "..",
    "/etc/passwd",
    "\n",
    ",",
    "{}",
    "[]",
    '"',
    "#",
    "%s",
    "\\",
    "\t",
    "🧪" * 50,
)
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 1.5, 2**31, 2**63, 10**30, 1e308, float("nan"), float("inf")),
    *("", "a", "\x00", "8", "nan", [], {}, [[]], {"": {}}, [1, 2, 3], "x" * 3000),
)
_MOST = 2**22  # bytes of a file that is made


def mutate(content: bytes, name: str, random: Random, times: int = 3) -> bytes:
    """Hurt the content of a file, one to ``times`` times.

    Args:
        content: Of a valid file, or of one that is hurt already.
        name: Of the file, which tells its kind.
        random: Makes the choices.
        times: At most.
    """
    ways = [_bytes, *_ways(content, name)]
    for _ in range(1 + random.randrange(times)):
        way = random.choice(ways)
        try:
            content = way(content, random)
        except _BROKEN:  # what was hurt before has no such form any more
            content = _bytes(content, random)
    return content[:_MOST]


_BROKEN = (
    *(
        ValueError,
        AttributeError,
        KeyError,
        IndexError,
        TypeError,
        OSError,
        EOFError,
        RuntimeError,
        OverflowError,
    ),
    *(struct.error, zipfile.BadZipFile, tarfile.TarError, lzma.LZMAError, zlib.error, NotImplementedError),
)


def _ways(content: bytes, name: str) -> list[Callable[[bytes, Random], bytes]]:
    suffix = Path(name).suffix
    if suffix in _PACKED and not name.endswith((".tar.gz", ".tar.bz2", ".tar.xz")):
        return [_packed(suffix, _text)]
    if content[:2] == b"PK":
        return [_zip, _zip_directory]
    if ".tar" in name:
        return [_packed(suffix, _tar) if suffix in _PACKED else _tar]
    if suffix == ".safetensors" or name.endswith(".restart"):
        return [_safetensors, _safetensors]
    if suffix == ".json":
        return [_json, _text]
    return [] if suffix in (".h5", ".db", ".traj", ".old") else [_text, _text]


def _bytes(content: bytes, random: Random) -> bytes:
    """Change, take out, put in, repeat or cut off some bytes."""
    data = bytearray(content)
    place = random.randrange(len(data) + 1)
    length = min(random.choice((1, 1, 2, 4, 8, 64, 1000)), len(data) - place)
    kind = random.randrange(7)
    if kind == 0 and length:
        data[place] ^= 1 << random.randrange(8)
    elif kind == 1:
        data[place : place + length] = bytes([random.choice((0, 1, 127, 128, 255))]) * length
    elif kind == 2:
        del data[place : place + length]
    elif kind == 3:
        data[place:place] = bytes(random.randrange(256) for _ in range(min(length, 8)))
    elif kind == 4:
        other = random.randrange(len(data) + 1)
        data[other:other] = data[place : place + length]
    elif kind == 5:
        number = random.choice((0, 1, 2**15, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1))
        form = random.choice(("<Q", ">Q", "<I", ">I", "<H"))
        packed = struct.pack(form, number % 2 ** (8 * struct.calcsize(form)))
        data[place : place + len(packed)] = packed
    else:
        del data[place:]
    return bytes(data)


def _text(content: bytes, random: Random) -> bytes:
    """Change a number, a word or a line."""
    text = content.decode("utf-8", "replace")
    kind = random.randrange(4)
    if kind < 2:
        found = list(re.finditer(r"[-+]?\d[\d.eED+-]*" if kind == 0 else r"[^\s,:=\[\]{}\"']+", text))
        if found:
            one = random.choice(found)
            new = random.choice(_NUMBERS if kind == 0 or random.random() < 0.5 else _TEXTS)
            text = text[: one.start()] + new + text[one.end() :]
        return text.encode("utf-8", "replace")
    lines = text.splitlines(keepends=True) or [""]
    first, second = random.randrange(len(lines)), random.randrange(len(lines))
    if kind == 2:
        lines[first], lines[second] = lines[second], lines[first]
    else:
        lines[first : first + 1] = lines[second : second + 1] * random.choice((0, 2, 2, 500))
    return "".join(lines).encode("utf-8", "replace")


def _tree(tree: Any, random: Random) -> Any:
    """Change, remove or add something in what was JSON; texts that are JSON too are opened."""
    path, node = [], tree
    while isinstance(node, (dict, list)) and node and random.random() < 0.9:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        path.append((node, random.choice(keys)))
        node = node[path[-1][1]]
    if isinstance(node, str) and node[:1] in ("{", "[") and path:
        path[-1][0][path[-1][1]] = json.dumps(_tree(json.loads(node), random))
        return tree
    if not path:
        return random.choice(_VALUES)
    parent, key = path[-1]
    kind = random.randrange(4)
    if kind == 0:
        del parent[key]
    elif kind == 1 and isinstance(parent, dict):
        parent[random.choice(("", "a", "energy", "__proto__", "dtype", key + "x"))] = parent[key]
    elif kind == 1:
        parent.insert(key, random.choice(_VALUES))
    elif kind == 2 and isinstance(node, (int, float)):
        parent[key] = random.choice((-node, node + 1, node * 2, float(node), str(node), [node], 2**40))
    else:
        parent[key] = random.choice(_VALUES)
    return tree


def _json(content: bytes, random: Random) -> bytes:
    return json.dumps(_tree(json.loads(content), random)).encode()


def _safetensors(content: bytes, random: Random) -> bytes:
    """Change the table of a safetensors file, or its numbers; all lengths are right again."""
    length = int.from_bytes(content[:8], "little")
    table, data = content[8 : 8 + length], content[8 + length :]
    if random.random() < 0.3:
        return content[: 8 + length] + _bytes(data, random)[: len(data)].ljust(len(data), b"\xff")
    header = json.loads(table)
    metadata = header.get("__metadata__")
    if isinstance(metadata, dict) and metadata and random.random() < 0.6:
        key = random.choice(list(metadata))
        metadata[key] = json.dumps(_tree(json.loads(metadata[key]), random))
    else:
        header = _tree(header, random)
    table = json.dumps(header).encode()
    return len(table).to_bytes(8, "little") + table + data


def _zip(content: bytes, random: Random) -> bytes:
    """Change a member of a zip, whose checksum is right again."""
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        members = [(info.filename, file.read(info), info.compress_type) for info in file.infolist()]
    which = random.randrange(len(members))
    name, data, method = members[which]
    kind = random.randrange(5)
    if kind == 0:
        name = random.choice((name + "x", "../" + name, "", "z.npy", members[0][0], "a/" + name))
    elif kind < 3 and data[:6] == b"\x93NUMPY":
        data = _npy(data, random)
    else:
        data = _bytes(data, random)
    members[which] = (name, data, random.choice((method, zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED)))
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of two members of one name
        for name, data, method in members:
            file.writestr(zipfile.ZipInfo(name), data, method)
    return made.getvalue()


def _zip_directory(content: bytes, random: Random) -> bytes:
    """Change a byte of the directory at a zip's end."""
    start = max(0, content.rfind(b"PK\x05\x06") - 400) if random.random() < 0.7 else 0
    place = start + random.randrange(max(1, len(content) - start))
    return content[:place] + bytes([random.randrange(256)]) + content[place + 1 :]


def _npy(data: bytes, random: Random) -> bytes:
    """Change the head of an array, whose length is right again."""
    length = int.from_bytes(data[8:10], "little")
    head = data[10 : 10 + length].decode("latin1")
    old = random.choice(re.findall(r"\d+|True|False|'[<>|]?\w+'|\(|\)", head))
    new = random.choice(
        (*_NUMBERS[:12], "'|O'", "'<U9'", "'<f8'", "'|V8'", "'>i2'", "True", "(1, 2)", "[]", "os")
    )
    head = head.replace(old, new, 1)
    return (
        data[:8]
        + struct.pack("<H", len(head) % 65536)
        + head.encode("latin1", "replace")
        + data[10 + length :]
    )


def _tar(content: bytes, random: Random) -> bytes:
    """Change the head of a member, whose checksum is right again."""
    data = bytearray(content)
    heads = [i for i in range(0, len(data) - 511, 512) if data[i + 257 : i + 262] == b"ustar"]
    start = random.choice(heads)
    field, size = random.choice(((0, 100), (100, 8), (124, 12), (156, 1), (157, 100), (345, 155)))
    new = random.choice(
        (b"../x", b"/x", b"5", b"2", b"S", b"x", b"L", b"g", b"\x80\xff\xff\xff", b"77777777777", b"-1", b"a")
    )
    data[start + field : start + field + size] = new[:size].ljust(size, b"\0")
    data[start + 148 : start + 156] = b" " * 8
    data[start + 148 : start + 156] = b"%06o\0 " % sum(data[start : start + 512])
    return bytes(data)


_PACKED = {
    ".gz": (gzip.decompress, gzip.compress),
    ".bz2": (bz2.decompress, bz2.compress),
    ".xz": (lzma.decompress, lzma.compress),
}


def _packed(suffix: str, way: Callable[[bytes, Random], bytes]) -> Callable[[bytes, Random], bytes]:
    """Unpack, hurt and pack again."""
    unpack, pack = _PACKED[suffix]
    return lambda content, random: pack(way(unpack(content), random))
