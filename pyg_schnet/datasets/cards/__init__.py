"""Cards of published data sets: files, hashes, units and sizes."""
