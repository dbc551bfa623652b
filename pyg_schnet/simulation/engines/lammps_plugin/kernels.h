/* The kernels of `kernels_single.c` and `kernels_double.c`, by floating-point type. */
#pragma once
#include <cstdint>
#include <cstring>

namespace single {
#define real float
#include "runtime.h"
#undef real
#undef PYG_SCHNET_RUNTIME_H
#undef OPERATIONS
extern "C" {
int convolve_single(const Convolution *, const float *y, float *v);
int convolve_backward_single(const Convolution *, const float *g, const float *y, float *to_y, float *slope,
                             float *table);
void ssp_single(const float *x, int64_t count, float *out);
void ssp_backward_single(const float *g, const float *x, int64_t count, float *out);
}
}    // namespace single

namespace twofold {
#define real double
#include "runtime.h"
#undef real
extern "C" {
int convolve_double(const Convolution *, const double *y, double *v);
int convolve_backward_double(const Convolution *, const double *g, const double *y, double *to_y, double *slope,
                             double *table);
void ssp_double(const double *x, int64_t count, double *out);
void ssp_backward_double(const double *g, const double *x, int64_t count, double *out);
}
}    // namespace twofold

template <class Real> struct Kernels;

template <> struct Kernels<float> {
    using Convolution = single::Convolution;
    static constexpr auto convolve = single::convolve_single;
    static constexpr auto convolve_backward = single::convolve_backward_single;
    static constexpr auto ssp = single::ssp_single;
    static constexpr auto ssp_backward = single::ssp_backward_single;
};

template <> struct Kernels<double> {
    using Convolution = twofold::Convolution;
    static constexpr auto convolve = twofold::convolve_double;
    static constexpr auto convolve_backward = twofold::convolve_backward_double;
    static constexpr auto ssp = twofold::ssp_double;
    static constexpr auto ssp_backward = twofold::ssp_backward_double;
};
