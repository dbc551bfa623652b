"""Files and terminals: atomic writes, locks, hashes, units and console output."""
