/* Continuous-filter convolutions over pairs of atoms, with filters from a spline table, and their derivatives.
 *
 * A pair p of atoms i, j at distance d has the filter w(d) = sum_m b_m(t) table[k + m], a quintic B-spline in
 * d = origin + (k + t) / inverse, so that all functions here are derivatives of one number
 *
 *     S = sum_p sum_c w_c(d_p) (g_ic y_jc + g_jc y_ic)
 *
 * Each thread takes a part of the pairs and adds up in memory of its own; parts are added in a fixed order, so
 * that results do not depend on timing. Compiled twice, for `real` float and double. A distance outside the
 * table gives NaN, never an extrapolated filter.
 */
#include "runtime.h"
#include <math.h>
#include <stdlib.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#define INLINE static inline __attribute__((always_inline))

enum { BLOCK = 64 }; /* pairs whose splines are computed at once, as vectors */

/* The six B-splines that are not zero at a distance, and their derivatives by it, of a block of pairs. */
typedef struct {
    int64_t row[BLOCK]; /* of the table, where they begin */
    real order[3][BLOCK][6];
} Splines;

/* Evaluate derivatives up to `orders - 1`, for pairs p0 to p0 + count. */
INLINE void evaluate(const Convolution *a, int64_t p0, int64_t count, const int orders, Splines *out) {
    const double f = 1.0 / 120, f1 = a->inverse / 24, f2 = a->inverse * a->inverse / 6;
    const double end = (double)(a->knots - 5);
    double place[BLOCK], values[3][6][BLOCK];
    for (int64_t p = 0; p < count; p++) {
        const double u = ((double)a->distance[p0 + p] - a->origin) * a->inverse;
        const int inside = u >= 0 && u < end; /* false for NaN */
        const double k = inside ? (double)(int32_t)u : 0;
        out->row[p] = (int64_t)k;
        place[p] = inside ? u - k : NAN;
    }
    for (int64_t p = 0; p < count; p++) {
        const double t = place[p], s = 1 - t, t2 = t * t, s2 = s * s;
        values[0][0][p] = f * s2 * s2 * s;
        values[0][1][p] = f * (26 + t * (-50 + t * (20 + t * (20 + t * (-20 + 5 * t)))));
        values[0][2][p] = f * (66 + t2 * (-60 + t2 * (30 - 10 * t)));
        values[0][3][p] = f * (66 + s2 * (-60 + s2 * (30 - 10 * s)));
        values[0][4][p] = f * (26 + s * (-50 + s * (20 + s * (20 + s * (-20 + 5 * s)))));
        values[0][5][p] = f * t2 * t2 * t;
        if (orders > 1) {
            values[1][0][p] = -f1 * s2 * s2;
            values[1][1][p] = f1 * (-10 + t * (8 + t * (12 + t * (-16 + 5 * t))));
            values[1][2][p] = f1 * (t * (-24 + t2 * (24 - 10 * t)));
            values[1][3][p] = -f1 * (s * (-24 + s2 * (24 - 10 * s)));
            values[1][4][p] = -f1 * (-10 + s * (8 + s * (12 + s * (-16 + 5 * s))));
            values[1][5][p] = f1 * t2 * t2;
        }
        if (orders > 2) {
            values[2][0][p] = f2 * s2 * s;
            values[2][1][p] = f2 * (2 + t * (6 + t * (-12 + 5 * t)));
            values[2][2][p] = f2 * (-6 + t2 * (18 - 10 * t));
            values[2][3][p] = f2 * (-6 + s2 * (18 - 10 * s));
            values[2][4][p] = f2 * (2 + s * (6 + s * (-12 + 5 * s)));
            values[2][5][p] = f2 * t2 * t;
        }
    }
    for (int k = 0; k < orders; k++)
        for (int64_t p = 0; p < count; p++)
            for (int m = 0; m < 6; m++) out->order[k][p][m] = (real)values[k][m][p];
}

INLINE real filter(const real *restrict b, const real *restrict table, int64_t c, int64_t n) {
    return b[0] * table[c] + b[1] * table[n + c] + b[2] * table[2 * n + c] + b[3] * table[3 * n + c] +
           b[4] * table[4 * n + c] + b[5] * table[5 * n + c];
}

/* What a thread adds to: rows [low, high) of per-atom outputs, and a table. */
typedef struct {
    real *rows[2], *table;
    int64_t low, high;
} Sums;

/* v_i += w y_j, v_j += w y_i */
INLINE void convolve_pair(const Convolution *a, const Splines *at, int64_t p0, int64_t p, const int64_t n, Sums o,
                          const real *y) {
    const real *b = at->order[0][p], *restrict table = a->table + at->row[p] * n;
    const int64_t i = a->first[p0 + p], j = a->second[p0 + p];
    const real *yi = y + i * n, *yj = y + j * n;
    real *vi = o.rows[0] + i * n, *vj = o.rows[0] + j * n;
#pragma GCC ivdep
    for (int64_t c = 0; c < n; c++) {
        const real w = filter(b, table, c, n);
        vi[c] += w * yj[c];
        vj[c] += w * yi[c];
    }
}

/* dS/dy, and dS/dd and dS/dtable where they are wanted */
INLINE void backward_pair(const Convolution *a, const Splines *at, int64_t p0, int64_t p, const int64_t n, Sums o,
                         const real *g, const real *y, real *slope, const int with_slope,
                         const int with_table) {
    const real *b = at->order[0][p], *b1 = at->order[1][p], *restrict table = a->table + at->row[p] * n;
    const int64_t i = a->first[p0 + p], j = a->second[p0 + p];
    const real *yi = y + i * n, *yj = y + j * n, *gi = g + i * n, *gj = g + j * n;
    real *vi = o.rows[0] + i * n, *vj = o.rows[0] + j * n;
    real *to = with_table ? o.table + at->row[p] * n : NULL, sum = 0;
#pragma GCC ivdep
    for (int64_t c = 0; c < n; c++) {
        const real w = filter(b, table, c, n), q = gi[c] * yj[c] + gj[c] * yi[c];
        vi[c] += w * gj[c];
        vj[c] += w * gi[c];
        if (with_slope) sum += filter(b1, table, c, n) * q;
        if (with_table)
            for (int m = 0; m < 6; m++) to[m * n + c] += b[m] * q;
    }
    if (with_slope) slope[p0 + p] = sum;
}

/* The derivatives of <a, dS/dy> + <s, dS/dd> by y, g, the table and, where it is wanted, the distance. */
INLINE void double_backward_pair(const Convolution *a, const Splines *at, int64_t p0, int64_t p, const int64_t n, Sums o,
                        const real *g, const real *y, const real *to_y, const real *to_slope, real *slope,
                        const int with_slope) {
    const real *b = at->order[0][p], *b1 = at->order[1][p], *b2 = at->order[2][p], s = to_slope[p0 + p];
    const real *restrict table = a->table + at->row[p] * n;
    const int64_t i = a->first[p0 + p], j = a->second[p0 + p];
    const real *yi = y + i * n, *yj = y + j * n, *gi = g + i * n, *gj = g + j * n;
    const real *ai = to_y + i * n, *aj = to_y + j * n;
    real *by_yi = o.rows[0] + i * n, *by_yj = o.rows[0] + j * n;
    real *by_gi = o.rows[1] + i * n, *by_gj = o.rows[1] + j * n, *to = o.table + at->row[p] * n, sum = 0;
    const real sb1[6] = {s * b1[0], s * b1[1], s * b1[2], s * b1[3], s * b1[4], s * b1[5]};
#pragma GCC ivdep
    for (int64_t c = 0; c < n; c++) {
        const real w = filter(b, table, c, n), w1 = filter(sb1, table, c, n);
        const real q = ai[c] * gj[c] + aj[c] * gi[c], q1 = gi[c] * yj[c] + gj[c] * yi[c];
        by_yi[c] += w1 * gj[c];
        by_yj[c] += w1 * gi[c];
        by_gi[c] += w * aj[c] + w1 * yj[c];
        by_gj[c] += w * ai[c] + w1 * yi[c];
        for (int m = 0; m < 6; m++) to[m * n + c] += b[m] * q + sb1[m] * q1;
        if (with_slope) sum += filter(b1, table, c, n) * q + s * filter(b2, table, c, n) * q1;
    }
    if (with_slope) slope[p0 + p] = sum;
}

typedef enum { CONVOLVE, CONVOLVE_BACKWARD, SECOND } Kind;

typedef struct {
    const real *g, *y, *to_y, *to_slope;
    real *slope;
} Operands;

INLINE void part_of(Kind kind, const Convolution *a, int64_t p0, int64_t p1, const int64_t n, Sums o, Operands x) {
    Splines at;
    for (; p0 < p1; p0 += BLOCK) {
        const int64_t count = p1 - p0 < BLOCK ? p1 - p0 : BLOCK;
#define EACH(ORDERS, CALL)                      \
    do {                                        \
        evaluate(a, p0, count, ORDERS, &at);    \
        for (int64_t p = 0; p < count; p++) CALL; \
    } while (0)
        if (kind == CONVOLVE)
            EACH(1, convolve_pair(a, &at, p0, p, n, o, x.y));
        else if (kind == SECOND && x.slope)
            EACH(3, double_backward_pair(a, &at, p0, p, n, o, x.g, x.y, x.to_y, x.to_slope, x.slope, 1));
        else if (kind == SECOND)
            EACH(2, double_backward_pair(a, &at, p0, p, n, o, x.g, x.y, x.to_y, x.to_slope, NULL, 0));
        else if (x.slope && o.table)
            EACH(2, backward_pair(a, &at, p0, p, n, o, x.g, x.y, x.slope, 1, 1));
        else if (x.slope)
            EACH(2, backward_pair(a, &at, p0, p, n, o, x.g, x.y, x.slope, 1, 0));
        else if (o.table)
            EACH(1, backward_pair(a, &at, p0, p, n, o, x.g, x.y, NULL, 0, 1));
        else
            EACH(1, convolve_pair(a, &at, p0, p, n, o, x.g));
#undef EACH
    }
}

/* The usual numbers of channels are compiled in, which makes their loops straight vector code. */
static void part(Kind kind, const Convolution *a, int64_t p0, int64_t p1, Sums o, Operands x) {
    if (a->channels == 64)
        part_of(kind, a, p0, p1, 64, o, x);
    else if (a->channels == 128)
        part_of(kind, a, p0, p1, 128, o, x);
    else
        part_of(kind, a, p0, p1, a->channels, o, x);
}

enum { PAIRS_A_THREAD = 512 }; /* fewer are done before another thread wakes up */
#define MAX_THREADS 256

/* Returns 0, NO_MEMORY, or INVALID_SPLINE if pairs are of absent atoms or the table is too short. */
static int run(Kind kind, const Convolution *a, real *rows0, real *rows1, real *table, Operands x) {
    if (a->pairs && a->knots < 6) return INVALID_SPLINE;
    if (!a->checked) {
        int wrong = 0;
        for (int64_t p = 0; p < a->pairs; p++)
            wrong |= (uint64_t)a->first[p] >= (uint64_t)a->atoms || (uint64_t)a->second[p] >= (uint64_t)a->atoms;
        if (wrong) return INVALID_SPLINE;
    }
    const int64_t n = a->channels, outputs = rows1 ? 2 : 1, cells = table ? a->knots * n : 0;
    int64_t threads = a->threads < 1 ? 1 : a->threads > MAX_THREADS ? MAX_THREADS : a->threads;
    if (threads > 1 && a->pairs < PAIRS_A_THREAD * threads) threads = 1;
    if (threads == 1) {
        memset(rows0, 0, sizeof(real) * a->atoms * n);
        if (rows1) memset(rows1, 0, sizeof(real) * a->atoms * n);
        if (table) memset(table, 0, sizeof(real) * cells);
        const Sums o = {{rows0, rows1}, table, 0, a->atoms};
        part(kind, a, 0, a->pairs, o, x);
        return 0;
    }
    int failed = 0;
    Sums parts[MAX_THREADS];
#pragma omp parallel num_threads(threads)
    {
        /* As many parts as asked for, even if the system gives fewer threads: the sums stay the same. */
#ifdef _OPENMP
        const int64_t self = omp_get_thread_num(), team = omp_get_num_threads();
#else
        const int64_t self = 0, team = 1;
#endif
        size_t used = 0, size = 0;
        for (int64_t k = self; k < threads; k += team) {
            const int64_t p0 = a->pairs * k / threads, p1 = a->pairs * (k + 1) / threads;
            int64_t low = a->atoms, high = 0;
            for (int64_t p = p0; p < p1; p++) {
                const int64_t i = a->first[p], j = a->second[p];
                low = i < low ? i : low, low = j < low ? j : low;
                high = i >= high ? i + 1 : high, high = j >= high ? j + 1 : high;
            }
            if (high < low) low = high;
            parts[k].low = low, parts[k].high = high;
            size += (high - low) * n * outputs + cells;
        }
        real *own = malloc(size * sizeof(real));
        if (!own && size) {
#pragma omp atomic write
            failed = NO_MEMORY;
        } else {
            memset(own, 0, size * sizeof(real));
            for (int64_t k = self; k < threads; k += team) {
                Sums *o = &parts[k];
                const int64_t rows = (o->high - o->low) * n;
                for (int64_t output = 0; output < outputs; output++, used += rows)
                    o->rows[output] = own + used - o->low * n;
                o->table = table ? own + used : NULL;
                used += cells;
                part(kind, a, a->pairs * k / threads, a->pairs * (k + 1) / threads, *o, x);
            }
        }
#pragma omp barrier
        if (!failed) {
            for (int64_t output = 0; output < outputs; output++) {
                real *to = output ? rows1 : rows0;
                const int64_t from = a->atoms * self / team, until = a->atoms * (self + 1) / team;
                memset(to + from * n, 0, (until - from) * n * sizeof(real));
                for (int64_t k = 0; k < threads; k++) {
                    const int64_t low = parts[k].low > from ? parts[k].low : from;
                    const int64_t high = parts[k].high < until ? parts[k].high : until;
                    const real *part_rows = parts[k].rows[output];
                    for (int64_t c = low * n; c < high * n; c++) to[c] += part_rows[c];
                }
            }
            for (int64_t c = cells * self / team; c < cells * (self + 1) / team; c++) {
                real sum = 0;
                for (int64_t k = 0; k < threads; k++) sum += parts[k].table[c];
                table[c] = sum;
            }
        }
#pragma omp barrier /* all have read it */
        free(own);
    }
    return failed;
}

int convolve(const Convolution *a, const real *y, real *v) {
    const Operands x = {.y = y};
    return run(CONVOLVE, a, v, NULL, NULL, x);
}

int convolve_backward(const Convolution *a, const real *g, const real *y, real *to_y, real *slope, real *table) {
    const Operands x = {.g = g, .y = y, .slope = slope};
    return run(CONVOLVE_BACKWARD, a, to_y, NULL, table, x);
}

int convolve_double_backward(const Convolution *a, const real *g, const real *y, const real *to_y, const real *to_slope,
                    real *by_y, real *by_g, real *by_table, real *slope) {
    const Operands x = {g, y, to_y, to_slope, slope};
    return run(SECOND, a, by_y, by_g, by_table, x);
}

/* out_r = sum_m weights[m] values_{r + m}, from `rows` to `rows - count + 1` rows; its transpose back. */
void correlate_rows(const real *values, const real *tap, int64_t count, int64_t rows, int64_t n, int transpose,
          real *out) {
    const int64_t inner = rows - count + 1;
    for (int64_t r = 0; r < (transpose ? rows : inner); r++) {
        real *to = out + r * n;
        memset(to, 0, n * sizeof(real));
        for (int64_t m = 0; m < count; m++) {
            const int64_t from = transpose ? r - m : r + m;
            if (from < 0 || (transpose && from >= inner)) continue;
            const real *row = values + from * n, factor = tap[m];
            for (int64_t c = 0; c < n; c++) to[c] += factor * row[c];
        }
    }
}
