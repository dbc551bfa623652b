"""Names of before; they go when nothing in the package uses them."""

from pyg_schnet.io.hashes import hash_content as fingerprint
from pyg_schnet.io.outputs import check_output, check_picture
from pyg_schnet.io.outputs import check_stores_many as check_holds_many
from pyg_schnet.io.outputs import check_stores_results as check_holds_results
from pyg_schnet.potentials.model_files import checkpoint_paths as checkpoints
from pyg_schnet.potentials.model_files import hash_models, model_files
from pyg_schnet.potentials.model_files import resolve_models as split_models

__all__ = [
    "check_holds_many", "check_holds_results", "check_output", "check_picture", "checkpoints", "fingerprint",
    "hash_models", "model_files", "split_models",
]  # fmt: skip
