"""Kernels in C for CPUs: their sources, compilation and calls."""
