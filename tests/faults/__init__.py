"""Faults injected on purpose: kills, hostile files, long runs; what came of them goes to a ledger."""
