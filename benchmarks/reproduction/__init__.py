"""The paper's tables, re-run: cells, a ledger of what came out, and the pages made from it."""
