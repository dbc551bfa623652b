"""Predictions for many structures: streamed, sharded and resumed."""
