r"""Segments of any length cut into parts, so that no program sums more rows than others do.

Each segment :math:`k` of the rows :math:`r_k \le r < r_{k+1}` is cut from its start into parts of ``PART``
rows. Their sums are stored from the place :math:`\lfloor r_k / \mathrm{PART} \rfloor + k` on: there is room
for all parts, and a program finds its part without the host, which knows the number of rows only. Which rows
form a part depends on their segment only: rows of zeros at the end of a segment change no bit of its sum.
"""

import triton
import triton.language as tl


def parts_of(rows: int, segments: int, part: int) -> int:
    """Return for how many parts there must be room."""
    return rows // part + segments


@triton.jit
def first_part(rowptr, segment, PART: tl.constexpr):
    """Return the place of the first part of a segment."""
    return tl.load(rowptr + segment) // PART + segment


@triton.jit
def find_rows(rowptr, place, segments, PART: tl.constexpr):
    """Return where the part at a place begins and ends; places without a part end where they begin."""
    low = place * 0 - 1  # the last segment whose first part is not behind the place
    high = low + 1 + segments
    while high - low > 1:
        middle = (low + high) // 2
        if first_part(rowptr, middle, PART) <= place:
            low = middle
        else:
            high = middle
    segment = tl.maximum(low, 0)
    begin = tl.load(rowptr + segment) + (place - first_part(rowptr, segment, PART)) * PART
    end = tl.minimum(tl.load(rowptr + segment + 1), begin + PART)
    begin = tl.where(low < 0, end, begin)
    return begin, tl.maximum(begin, end)
