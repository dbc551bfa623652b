/* The shifted softplus ln((1 + e^x) / 2), and its derivatives, as vectors. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
enum { DOUBLE = sizeof(real) == sizeof(double) };

/* e^-x for x >= 0, by Taylor's series around the nearest power of two; relative error 1e-7, or 2e-16; 4e-6 at 1e-38. */
INLINE real decay(real x) {
    const real most = DOUBLE ? 700 : 87; /* beyond, the exponent ends; e^-87 is 1e-38 */
    x = x > most ? most : x;
    const real n = DOUBLE ? (real)rint((double)x * 1.4426950408889634) : (real)rintf((float)x * 1.44269504f);
    const real high = DOUBLE ? (real)6.93147180369123816490e-01 : (real)0.693359375;
    const real low = DOUBLE ? (real)1.90821492927058770002e-10 : (real)-2.12194440e-4;
    const real r = -((x - n * high) - n * low);
    real sum = 1;
#pragma GCC unroll 20
    for (int k = DOUBLE ? 13 : 7; k > 0; k--) sum = 1 + sum * r * ((real)1 / k);
    real scale;
    if (DOUBLE) {
        const int64_t bits = ((int64_t)1023 - (int64_t)n) << 52;
        memcpy(&scale, &bits, sizeof(scale));
    } else {
        const int32_t bits = (127 - (int32_t)n) << 23;
        memcpy(&scale, &bits, sizeof(scale));
    }
    return sum * scale;
}

/* ln(1 + e) for 0 <= e <= 1: twice the area tangent of e / (2 + e), a third at most. */
INLINE real log_one_plus(real e) {
    const real s = e / (2 + e), square = s * s;
    real sum = 0;
#pragma GCC unroll 20
    for (int k = DOUBLE ? 33 : 15; k > 0; k -= 2) sum = (real)1 / k + square * sum;
    return 2 * s * sum;
}

INLINE real magnitude(real x) { return x < 0 ? -x : x; }

INLINE real sigmoid(real x) {
    const real e = decay(magnitude(x)), inverse = 1 / (1 + e);
    return x < 0 ? e * inverse : inverse;
}

void ssp(const real *x, int64_t count, real *out) {
#pragma omp simd
    for (int64_t k = 0; k < count; k++)
        out[k] = (x[k] > 0 ? x[k] : 0) + (log_one_plus(decay(magnitude(x[k]))) - (real)0.69314718055994530942);
}

void ssp_backward(const real *g, const real *x, int64_t count, real *out) {
#pragma omp simd
    for (int64_t k = 0; k < count; k++) out[k] = g[k] * sigmoid(x[k]);
}

/* The derivatives of <a, ssp_backward> by g and by x. */
void ssp_double_backward(const real *a, const real *g, const real *x, int64_t count, real *to_g, real *to_x) {
#pragma omp simd
    for (int64_t k = 0; k < count; k++) {
        const real slope = sigmoid(x[k]);
        to_g[k] = a[k] * slope;
        to_x[k] = a[k] * g[k] * slope * (1 - slope);
    }
}
