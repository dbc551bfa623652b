"""Phases of a program: what is done once, what part by part of a batch, and how long memory is held."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor
from torch.fx import Node

from pyg_schnet.compile.operation import EXTENTS, Unsupported, root


def phases_of(
    forwards: Sequence[Node],
    backwards: Sequence[Node],
    own: set[Node],
    has_rows: Callable[[Node], bool],
) -> tuple[list[Node], list[Node], list[Node], list[Node]]:
    """Divide operations into those done once before, forward and backward of the parts, and once after.

    Args:
        forwards: Operations of forward.
        backwards: Operations of backward.
        own: Inputs of which each part has rows of its own.
        has_rows: Whether a node has rows for atoms, pairs or molecules.

    Raises:
        Unsupported: If the operations cannot be divided so.
    """
    before, forward, backward, after = phases = ([], [], [], [])
    part: set[Node] = set(own)  # what differs between parts, sums over a part's molecules included
    sums: set[Node] = set()
    later = set(backwards)
    for node in (*forwards, *backwards):
        if node.target in EXTENTS:
            continue
        used = [n for n in node.all_input_nodes if isinstance(n.meta["val"], Tensor | tuple | list)]
        rows, is_backward = has_rows(node), node in later
        if not any(n in part or n in sums for n in used) and not rows:
            before.append(node)
            continue
        if is_backward and not any(n in part and n not in sums for n in used) and not rows:
            sums.add(node)
            after.append(node)
            continue
        if any(n in after for n in used):
            raise Unsupported(f"{node.target} of a part, from a sum over all")
        part.add(node)
        if not rows:
            if not is_backward:
                raise Unsupported(f"{node.target}, a sum over a part, which is not one over all")
            sums.add(node)
        (backward if is_backward else forward).append(node)
    return phases


def groups_of(nodes: Sequence[Node]) -> dict[Node, int]:
    """Number groups of operations that do not need each other."""
    inside, group = set(nodes), {}
    for number, node in enumerate(nodes):
        joined = {group[n] for n in node.all_input_nodes if n in inside}
        group = {n: number if g in joined else g for n, g in group.items()}
        group[node] = number
    numbers = {g: k for k, g in enumerate(dict.fromkeys(group.values()))}
    return {node: numbers[g] for node, g in group.items()}


def last_uses(
    nodes: list[Node], outputs: Sequence[Node], gradients: Sequence[Node | None], forwards: int
) -> dict[Node, int]:
    """Tell after which node the memory of each is free; results live until their run ends."""
    last: dict[Node, int] = {}
    for step, node in enumerate(nodes):
        for used in node.all_input_nodes:
            last[root(used)] = step
    for node in outputs:
        last[root(node)] = max(last.get(root(node), 0), forwards - 1)
    for node in gradients:
        if node is not None:
            last[root(node)] = len(nodes) + 1
    return last
