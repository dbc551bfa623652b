r"""Quintic B-splines within kernels: the place of a distance among the knots, and the splines there.

.. math::
    w_c(d) = \sum_{m=0}^5 b_m(t)\, T_{k+m,\,c}, \qquad d = h (n + k + t), \quad 0 \le t < 1

with the table :math:`T`, knots :math:`h` apart and the first interval at :math:`nh`. The place is computed in
float64, as float32 would leave four digits of :math:`t`; it is NaN outside of the table, where a spline is
never extrapolated.
"""

import triton
import triton.language as tl


@triton.jit
def find_place(distance, mask, origin, inverse, knots, dtype: tl.constexpr):
    """Return the first of six rows of the table, and the place between knots; 0 where ``mask`` is false."""
    u = (distance.to(tl.float64) - origin) * inverse
    inside = (u >= 0) & (u < knots - 5)
    u = tl.where(inside, u, 0.0)
    k = tl.floor(u)
    t = tl.where(inside, u - k, float("nan"))
    return k.to(tl.int64), tl.where(mask, t, 0.0).to(dtype)


@triton.jit
def scalar(value, dtype: tl.constexpr):
    """Return a float64 argument as a tensor of one element of another type."""
    return tl.full((1,), value, tl.float64).to(dtype)


@triton.jit
def splines(t):
    """Return the six splines that are not zero, times 120."""
    s = 1 - t
    t2 = t * t
    s2 = s * s
    b1 = 26 + t * (-50 + t * (20 + t * (20 + t * (-20 + 5 * t))))
    b2 = 66 + t2 * (-60 + t2 * (30 - 10 * t))
    b3 = 66 + s2 * (-60 + s2 * (30 - 10 * s))
    b4 = 26 + s * (-50 + s * (20 + s * (20 + s * (-20 + 5 * s))))
    return s2 * s2 * s, b1, b2, b3, b4, t2 * t2 * t


@triton.jit
def slopes(t):
    """Return their derivatives by t, times 24."""
    s = 1 - t
    t2 = t * t
    s2 = s * s
    b1 = -10 + t * (8 + t * (12 + t * (-16 + 5 * t)))
    b2 = t * (-24 + t2 * (24 - 10 * t))
    b3 = -s * (-24 + s2 * (24 - 10 * s))
    b4 = 10 - s * (8 + s * (12 + s * (-16 + 5 * s)))
    return -s2 * s2, b1, b2, b3, b4, t2 * t2


@triton.jit
def curvatures(t):
    """Return their second derivatives by t, times 6."""
    s = 1 - t
    t2 = t * t
    s2 = s * s
    b1 = 2 + t * (6 + t * (-12 + 5 * t))
    b2 = -6 + t2 * (18 - 10 * t)
    b3 = -6 + s2 * (18 - 10 * s)
    b4 = 2 + s * (6 + s * (-12 + 5 * s))
    return s2 * s, b1, b2, b3, b4, t2 * t


@triton.jit
def load_rows(at, channels, mask):
    """Return six rows of the table, of a block of pairs and channels."""
    return (
        tl.load(at, mask=mask, other=0.0),
        tl.load(at + channels, mask=mask, other=0.0),
        tl.load(at + 2 * channels, mask=mask, other=0.0),
        tl.load(at + 3 * channels, mask=mask, other=0.0),
        tl.load(at + 4 * channels, mask=mask, other=0.0),
        tl.load(at + 5 * channels, mask=mask, other=0.0),
    )


@triton.jit
def combine(b0, b1, b2, b3, b4, b5, r0, r1, r2, r3, r4, r5):
    """Return the sum of six rows, each times its factor of a block of pairs."""
    w = b0[:, None] * r0 + b1[:, None] * r1 + b2[:, None] * r2
    return w + b3[:, None] * r3 + b4[:, None] * r4 + b5[:, None] * r5
