"""MD22: molecular dynamics of large molecules and complexes."""

from pyg_schnet.datasets.md17 import MD17


class MD22(MD17):
    """Molecular dynamics of molecules and complexes of 42 to 370 atoms, with energies and forces.

    Items are those of :class:`MD17`: ``z (atoms,)``, ``pos (atoms, 3)`` in Å, ``energy (1,)`` in eV and
    ``forces (atoms, 3)`` in eV/Å. Published are kcal/mol and Å.

    Args:
        root: Folder of the raw and processed files, which all molecules may share.
        name: Name of the molecule, one of :meth:`MD17.names`.
        transform: Transform of each item.
        pre_transform: Transform of each item before it is stored.
        pre_filter: Function that returns whether an item is kept.
        force_reload: Whether to process again.
        source: ``"auto"`` downloads files that are not in ``root/raw``; otherwise the path of an npz file
            with the keys of MD17.
        energy_key: Name of the energies in the file, if not the default.
        forces_key: Name of the forces in the file, if not the default.
        dtype: Type of the positions; PyTorch's default type by default.
        memory_map: Whether to leave the tensors on disk.

    Raises:
        ValueError: If the name is unknown, or the file is damaged: its fingerprint is recomputed.
        DownloadError: If the file cannot be downloaded; the message names the file and its folder.

    Source:
        Chmiela et al., Sci. Adv. 9, eadf0873 (2023).
    """

    _card = "md22"
