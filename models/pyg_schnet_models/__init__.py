"""Pretrained models for pyg_schnet: weights and cards, no code."""
