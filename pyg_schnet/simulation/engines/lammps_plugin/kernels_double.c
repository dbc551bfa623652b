/* The convolution and the activation of the package in float64, under names of their own. */
#define real double
#define ssp ssp_double
#define ssp_backward ssp_backward_double
#define ssp_double_backward ssp_double_backward_double
#define convolve convolve_double
#define convolve_backward convolve_backward_double
#define convolve_double_backward convolve_double_backward_double
#define correlate_rows correlate_rows_double
#include "activation.c"
#include "convolution.c"
