"""Benchmarks of pyg_schnet against other implementations; nothing here is installed."""
