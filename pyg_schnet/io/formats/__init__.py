"""File formats of structures with labels, read into frames in eV and Å."""
