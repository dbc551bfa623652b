"""Models of other programs: PyG's SchNet in both directions, SchNetPack's weights."""
