"""What each check compares, in a sentence for readers who do not know the package."""

DESCRIPTIONS = {
    "evaluation": "Energies and forces of the structures are finite numbers.",
    "rotation": "Rotated structures have the same energy and rotated forces.",
    "reflection": "Mirror images have the same energy and mirrored forces.",
    "translation": "Moving a structure as a whole changes nothing.",
    "permutation": "The order in which atoms are listed does not matter.",
    "batching": "Structures computed together give the same results as one by one.",
    "repetition": "Computing twice gives the same, and the input is left unchanged.",
    "balance": "Forces sum to zero, as do torques of molecules.",
    "forces": "Forces are the negative derivative of the energy, by finite differences.",
    "stress": "Stresses are the derivative of the energy with respect to strain, by finite differences.",
    "loop": "Forces do no work along a closed path.",
    "smoothness": "Energy and forces do not jump as atoms move through the cutoff.",
    "float32": "Single precision agrees with double precision.",
    "mixed": "Reduced precision, where it is switched on, agrees with single precision.",
    "compiled": "The compiled model agrees with its plain execution.",
    "splines": "Splines of the filters agree with the filters themselves.",
    "drift": "Molecular dynamics without a thermostat conserves the total energy.",
    "bonds": "Stretching or compressing a bond costs energy, without an unphysical minimum beyond.",
    "extensivity": "Energies of separated copies, or of a repeated cell, add up.",
    "elements": "Elements that were absent from training are rejected.",
    "padding": "Empty entries of padded batches are rejected or ignored.",
}
"""Sentence by name of the check, the first part of :attr:`CheckResult.name`."""
