"""Partition of a program into what is computed once and what is computed for each part of a batch."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.fx import Node

from pyg_schnet.compile.passes import EXTENTS, VIEWS, Split
from pyg_schnet.compile.trace import Unsupported


@dataclass(frozen=True)
class Partition:
    """Operations in the order in which they are executed.

    Attributes:
        before: Groups of operations on weights alone, executed once, which do not need each other.
        forward: Operations executed for each part of a batch.
        backward: Operations executed for each part, once the gradients of its results are known.
        after: Groups of operations on sums over the parts, executed once, which do not need each other.
    """

    before: list[list[Node]]
    forward: list[Node]
    backward: list[Node]
    after: list[list[Node]]


def partition(split: Split, divided: set[Node], has_rows: Callable[[Node], bool]) -> Partition:
    """Divide operations into those executed once and those executed for each part.

    Args:
        split: The operations.
        divided: Arguments of which each part has rows of its own.
        has_rows: Whether the shape of a node depends on the number of atoms, sites, pairs or molecules.

    Raises:
        Unsupported: If the operations cannot be divided so.
    """
    before, forward, backward, after = [], [], [], []
    part = set(divided)  # what differs between parts, sums over a part's rows included
    sums: set[Node] = set()
    gradients = set(split.backward)
    for node in (*split.forward, *split.backward):
        if node.target in EXTENTS:
            continue
        used = [n for n in node.all_input_nodes if isinstance(n.meta["val"], Tensor | tuple | list)]
        rows, is_backward = has_rows(node), node in gradients
        if not rows and not any(n in part or n in sums for n in used):
            before.append(node)
        elif not rows and is_backward and not any(n in part and n not in sums for n in used):
            sums.add(node)
            after.append(node)
        elif any(n in after for n in used):
            raise Unsupported(f"{node.target} for each part, of a sum over all")
        else:
            part.add(node)
            if not rows:
                if not is_backward:
                    raise Unsupported(f"{node.target}, a sum over a part, in forward")
                sums.add(node)
            (backward if is_backward else forward).append(node)
    return Partition(_groups_of(before), forward, backward, _groups_of(after))


def _groups_of(nodes: Sequence[Node]) -> list[list[Node]]:
    """Divide operations, without views, into groups that do not need each other."""
    operations = [node for node in nodes if base_of(node) is node]
    group: dict[Node, int] = {}
    for number, node in enumerate(operations):
        joined = {group[base_of(n)] for n in node.all_input_nodes if base_of(n) in group}
        group = {n: number if g in joined else g for n, g in group.items()}
        group[node] = number
    numbers = dict.fromkeys(group.values())
    return [[node for node in operations if group[node] == number] for number in numbers]


def base_of(node: Node) -> Node:
    """Return the node whose memory a view shows."""
    while node.op == "call_function" and (node.target in VIEWS or node.target is operator.getitem):
        node = node.args[0]  # pyright: ignore
    return node


def last_uses(nodes: Sequence[Node], results: Sequence[Node | None]) -> dict[Node, int]:
    """Return after which of some nodes the memory of each is free; never before the end for results."""
    last: dict[Node, int] = {}
    for step, node in enumerate(nodes):
        for used in node.all_input_nodes:
            last[base_of(used)] = step
    for node in results:
        if node is not None:
            last[base_of(node)] = len(nodes)
    return last
