"""MD22: molecular dynamics of large molecules and complexes."""

from pyg_schnet.datasets.md17 import MD17


class MD22(MD17):
    """Molecular dynamics of molecules and complexes of 42 to 370 atoms; see :class:`MD17`.

    Source:
        Chmiela et al., Sci. Adv. 9, eadf0873 (2023).
    """

    _card = "md22"
