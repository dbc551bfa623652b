"""The pair style ``schnet`` of LAMMPS: its source in C++, its compilation, and the file of a model for it."""
