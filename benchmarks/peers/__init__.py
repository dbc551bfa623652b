"""What runs in each implementation's own environment; it needs torch, NumPy and ASE."""
