"""Molecular-dynamics engines that a potential plugs into."""
