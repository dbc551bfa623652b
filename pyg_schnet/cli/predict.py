"""The verb ``predict``: energies, forces and stresses of structures."""

from __future__ import annotations

import json
import time

from jsonargparse import ArgumentParser, Namespace

from pyg_schnet.cli.files import check_holds_results, check_output, split_models
from pyg_schnet.cli.options import add_files, add_resume, add_talk, with_model


def build(full: bool) -> tuple[str, ArgumentParser]:
    """Give the line of the verb in the list, and its options; all of them if ``full``."""
    parser = with_model(
        "Predict energies (eV), forces (eV/Å) and, of crystals, stresses (eV/Å³) of the structures of a "
        "file. Several models give their mean, and how far they disagree. A run that was killed goes on with "
        "--resume. Example: pyg-schnet predict RUN/model.safetensors in.xyz out.extxyz",
    )
    add_files(parser)
    parser.add_argument("--batch_size", type=int, default=32, help="structures at once")
    add_resume(parser)
    add_talk(parser)
    return "energies and forces of structures", parser


def run(options: Namespace) -> int:
    """Predict energies, forces and stresses of structures."""
    from pyg_schnet.cli.batch_run import BatchRun, has_same_places
    from pyg_schnet.simulation import predict

    check_output(options.out, overwrite=True)
    check_holds_results(options.out)
    work = BatchRun(options, {"verb": "predict"}, has_same_places)
    if not work.results.is_complete:
        with work.results:
            earlier = sum(1 for _ in work.earlier())
            begin = time.perf_counter()
            found = predict(
                split_models(options.model),
                work.structures(),
                options.batch_size,
                device=options.device,
                stress=True,
                on_refused=work.refuse,
            )
            new = sum(1 for _ in work.write(found, "predicting"))
            seconds = time.perf_counter() - begin
            work.finish()
    else:
        earlier, new, seconds = 0, 0, 0.0
    if options.json:
        refused = [{"frame": number, "reason": reason} for number, reason in work.refused]
        outside = [{"frame": number, "reason": reason} for number, reason in work.outside]
        told = {
            "structures": earlier + new,
            "earlier": earlier,
            "seconds": seconds,
            "refused": refused,
            "outside": outside,
        }
        print(json.dumps({**told, "out": options.out}))
    if work.results.is_complete:
        work.tell(f"nothing is left to do: {options.out}")
        return 0
    work.tell_refused()
    work.tell_outside()
    before = f", {earlier:,} of them before" if earlier else ""
    work.tell(f"{earlier + new:,} structures with energies (eV) and forces (eV/Å){before}: {options.out}")
    return 0
