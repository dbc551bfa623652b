/* Pairs of atoms closer than a cutoff, their distances, and the derivatives of the distances. */
#include <math.h>
#include <stdint.h>
#include <string.h>

enum { COINCIDENT = -1, NOT_FINITE = -2, NOT_SORTED = -3 };

/* The number of pairs within molecules, or an error. */
int64_t count_pairs(const int64_t *batch, int64_t atoms) {
    if (!batch) return atoms * (atoms - 1) / 2;
    int64_t pairs = 0, before = 0;
    for (int64_t i = 0; i < atoms; i++) {
        if (batch[i] < (i ? batch[i - 1] : 0)) return NOT_SORTED;
        before = i && batch[i] == batch[i - 1] ? before + 1 : 0;
        pairs += before;
    }
    return pairs;
}

/* All pairs i < j of one molecule closer than the cutoff, molecule by molecule, in the order of i, then j.
 * `first` and `second` have room for all pairs. Returns their number, or an error. */
static int64_t compare_all(const real *pos, const int64_t *batch, int64_t atoms, double cutoff, int64_t *first,
                           int64_t *second) {
    int64_t count = 0;
    const real square = (real)(cutoff * cutoff);
    for (int64_t i = 0; i < atoms; i++)
        if (!isfinite(pos[3 * i]) || !isfinite(pos[3 * i + 1]) || !isfinite(pos[3 * i + 2])) return NOT_FINITE;
    for (int64_t i = 0; i < atoms; i++) {
        const real x = pos[3 * i], y = pos[3 * i + 1], z = pos[3 * i + 2];
        for (int64_t j = i + 1; j < atoms && (!batch || batch[j] == batch[i]); j++) {
            const real dx = pos[3 * j] - x, dy = pos[3 * j + 1] - y, dz = pos[3 * j + 2] - z;
            const real d = dx * dx + dy * dy + dz * dz;
            if (!(d > 0)) return COINCIDENT;
            first[count] = i;
            second[count] = j;
            count += d < square;
        }
    }
    return count;
}

static uint64_t mixed(uint64_t x) {
    x ^= x >> 30, x *= 0xbf58476d1ce4e5b9ull;
    x ^= x >> 27, x *= 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

/* Whether each edge has its reverse, none being a loop: sums of a number for each, alike in both directions. */
static int is_symmetric(const int64_t *source, const int64_t *target, int64_t edges) {
    uint64_t forth = 0, back = 0;
    for (int64_t e = 0; e < edges; e++) {
        const uint64_t s = (uint64_t)source[e], t = (uint64_t)target[e];
        if (s < t)
            forth += mixed(mixed(s) + 3 * t + 1);
        else
            back += mixed(mixed(t) + 3 * s + 1);
    }
    return forth == back;
}

enum { WRONG_ELEMENT = -4, WRONG_EDGE = -5, ASYMMETRIC = -6 };

/* Check the elements of atoms, and pick the pairs of a batch: of all pairs of a molecule (`edges` negative) or of
 * edges that are given, those closer than the cutoff. There is room for so many pairs. `reach` gets the shortest
 * and the longest distance.
 * Returns the number of pairs, or an error, which slower code explains. */
int64_t find_pairs(const int64_t *z, const uint8_t *allowed, int64_t elements, const real *pos,
                   const int64_t *batch, int64_t atoms, double cutoff, const int64_t *edge, int64_t edges,
                   int64_t room, int64_t *first, int64_t *second, double *reach) {
    int64_t count = 0;
    real low = INFINITY, high = 0;
    for (int64_t i = 0; i < atoms; i++)
        if (z[i] < 1 || z[i] >= elements || !allowed[z[i]]) return WRONG_ELEMENT;
    if (edges < 0) {
        count = compare_all(pos, batch, atoms, cutoff, first, second);
    } else {
        for (int64_t i = 0; i < atoms; i++) {
            if (!isfinite(pos[3 * i]) || !isfinite(pos[3 * i + 1]) || !isfinite(pos[3 * i + 2])) return NOT_FINITE;
            if (batch && batch[i] < (i ? batch[i - 1] : 0)) return NOT_SORTED;
        }
        const int64_t *source = edge, *target = edge + edges;
        const real square = (real)(cutoff * cutoff);
        for (int64_t e = 0; e < edges; e++) {
            const int64_t i = source[e], j = target[e];
            if (i < 0 || j < 0 || i >= atoms || j >= atoms || (batch && batch[i] != batch[j])) return WRONG_EDGE;
            if (i >= j) continue;
            const real x = pos[3 * i] - pos[3 * j], y = pos[3 * i + 1] - pos[3 * j + 1],
                       w = pos[3 * i + 2] - pos[3 * j + 2], d = x * x + y * y + w * w;
            if (!(d > 0) || !isfinite(d)) return COINCIDENT;
            if (count == room) return ASYMMETRIC;
            first[count] = i, second[count] = j;
            count += d < square;
        }
        if (!is_symmetric(source, target, edges)) return ASYMMETRIC;
    }
    for (int64_t p = 0; p < count; p++) {
        const real *a = pos + 3 * first[p], *b = pos + 3 * second[p];
        const real x = a[0] - b[0], y = a[1] - b[1], w = a[2] - b[2], d = x * x + y * y + w * w;
        low = d < low ? d : low, high = d > high ? d : high;
    }
    reach[0] = sqrt((double)low), reach[1] = sqrt((double)high);
    return count;
}

void distances(const real *pos, const int64_t *first, const int64_t *second, int64_t pairs, real *d) {
    for (int64_t p = 0; p < pairs; p++) {
        const real *a = pos + 3 * first[p], *b = pos + 3 * second[p];
        const real x = a[0] - b[0], y = a[1] - b[1], z = a[2] - b[2];
        d[p] = sqrt(x * x + y * y + z * z);
    }
}

/* dS/dpos for S = sum_p g_p d_p */
void distances_backward(const real *g, const real *pos, const int64_t *first, const int64_t *second,
                       int64_t pairs, int64_t atoms, real *to) {
    memset(to, 0, 3 * atoms * sizeof(real));
    for (int64_t p = 0; p < pairs; p++) {
        const int64_t i = 3 * first[p], j = 3 * second[p];
        const real x = pos[i] - pos[j], y = pos[i + 1] - pos[j + 1], z = pos[i + 2] - pos[j + 2];
        const real f = g[p] / (real)sqrt(x * x + y * y + z * z);
        to[i] += f * x, to[i + 1] += f * y, to[i + 2] += f * z;
        to[j] -= f * x, to[j + 1] -= f * y, to[j + 2] -= f * z;
    }
}

/* The derivatives of <a, dS/dpos> by g and, unless it is NULL, by pos. */
void distances_double_backward(const real *a, const real *g, const real *pos, const int64_t *first,
                               const int64_t *second, int64_t pairs, int64_t atoms, real *to_g, real *to_pos) {
    if (to_pos) memset(to_pos, 0, 3 * atoms * sizeof(real));
    for (int64_t p = 0; p < pairs; p++) {
        const int64_t i = 3 * first[p], j = 3 * second[p];
        real u[3], v[3], square = 0, along = 0;
        for (int k = 0; k < 3; k++) {
            u[k] = pos[i + k] - pos[j + k];
            v[k] = a[i + k] - a[j + k];
            square += u[k] * u[k];
            along += u[k] * v[k];
        }
        const real inverse = 1 / (real)sqrt(square);
        to_g[p] = along * inverse;
        if (to_pos)
            for (int k = 0; k < 3; k++) {
                const real f = g[p] * inverse * (v[k] - along * inverse * inverse * u[k]);
                to_pos[i + k] += f;
                to_pos[j + k] -= f;
            }
    }
}
