/* The convolution and the activation of the package in float32, under names of their own. */
#define real float
#define ssp ssp_single
#define ssp_backward ssp_backward_single
#define ssp_double_backward ssp_double_backward_single
#define convolve convolve_single
#define convolve_backward convolve_backward_single
#define convolve_double_backward convolve_double_backward_single
#define correlate_rows correlate_rows_single
#include "activation.c"
#include "convolution.c"
