/* Products of many rows with a small matrix: the atom-wise layers. */
#pragma once
#include <cstdint>

#if defined(__AVX512F__)
constexpr int VECTOR_BYTES = 64;
#elif defined(__AVX__)
constexpr int VECTOR_BYTES = 32;
#else
constexpr int VECTOR_BYTES = 16;
#endif
constexpr int TILE_ROWS = 8;

/* Columns of a row that are in one register. */
template <class Real> struct Vector {
    typedef Real type __attribute__((vector_size(VECTOR_BYTES), aligned(alignof(Real)), may_alias));
    static constexpr int size = VECTOR_BYTES / sizeof(Real);
};

/* A tile of rows and one vector of columns stays in registers while the inner dimension is summed. */
template <class Real, int rows>
void multiply_rows(int64_t inner, int64_t columns, const Real *a, const Real *w, const Real *bias, bool add, Real *out)
{
    using Tile = typename Vector<Real>::type;
    int64_t c = 0;
    for (; c + Vector<Real>::size <= columns; c += Vector<Real>::size) {
        Tile sum[rows];
        for (int r = 0; r < rows; r++) {
            sum[r] = bias ? *reinterpret_cast<const Tile *>(bias + c) : Tile{};
            if (add) sum[r] += *reinterpret_cast<const Tile *>(out + r * columns + c);
        }
        for (int64_t m = 0; m < inner; m++) {
            const Tile weight = *reinterpret_cast<const Tile *>(w + m * columns + c);
            for (int r = 0; r < rows; r++) sum[r] += a[r * inner + m] * weight;
        }
        for (int r = 0; r < rows; r++) *reinterpret_cast<Tile *>(out + r * columns + c) = sum[r];
    }
    for (; c < columns; c++)
        for (int r = 0; r < rows; r++) {
            Real sum = (add ? out[r * columns + c] : 0) + (bias ? bias[c] : 0);
            for (int64_t m = 0; m < inner; m++) sum += a[r * inner + m] * w[m * columns + c];
            out[r * columns + c] = sum;
        }
}

/* out = a w + bias, or with `add`, out += a w + bias; a is (rows, inner), w (inner, columns). */
template <class Real>
void multiply(int64_t rows, int64_t inner, int64_t columns, const Real *a, const Real *w, const Real *bias, Real *out,
              bool add = false)
{
    int64_t r = 0;
    for (; r + TILE_ROWS <= rows; r += TILE_ROWS)
        multiply_rows<Real, TILE_ROWS>(inner, columns, a + r * inner, w, bias, add, out + r * columns);
    for (; r < rows; r++)
        multiply_rows<Real, 1>(inner, columns, a + r * inner, w, bias, add, out + r * columns);
}
