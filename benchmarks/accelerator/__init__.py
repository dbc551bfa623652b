"""Sections of the benchmark on a GPU; ``benchmarks/gpu.py`` runs them."""
