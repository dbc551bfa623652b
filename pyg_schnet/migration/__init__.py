"""Conversion of models: PyG's SchNet in both directions, and SchNetPack's weights."""
