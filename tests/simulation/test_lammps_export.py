"""Files for `pair_style schnet`: what they hold, and which models are rejected; without LAMMPS."""

import copy

import pytest
import torch
from safetensors.torch import load_file

from pyg_schnet import Ensemble, Potential, SchNet, load, save
from pyg_schnet.cli import main
from pyg_schnet.nn.readout import AtomicValues
from pyg_schnet.nn.spline import evaluate
from pyg_schnet.potentials import Target
from pyg_schnet.simulation import build_lammps_plugin, export_to_lammps
from pyg_schnet.simulation.engines.lammps_plugin.export import describe


@pytest.fixture
def out(tmp_path):
    return tmp_path / "model.lammps.safetensors"


def test_a_file_has_the_filters_of_the_network_as_splines(potential, out):
    export_to_lammps(potential, out)
    tensors, header = load_file(out), describe(out)
    assert header == {"elements": ["H", "C", "N", "O"], "cutoff": 4.0}
    model, distance = potential.model, torch.linspace(0.5, 3.99, 50, dtype=torch.float64)
    spacing = model.filter_tables.features(model).spacing
    for number, block in enumerate(model.interactions):
        filters = (
            block.cfconv.filter_network(model.radial_basis(distance)) * model.envelope(distance)[:, None]
        )
        table = tensors[f"interactions.{number}.table"]
        error = (evaluate(table, distance, 0, spacing) - filters).abs().max()
        assert error < 1e-6 * filters.abs().max()


def test_a_file_has_the_energies_of_its_elements_in_ev(potential, out):
    own = copy.deepcopy(potential)
    own.model.readout.mean = 2.0
    export_to_lammps(own, out)
    expected = own.atomref[[1, 6, 7, 8]] + own.scale * 2.0
    assert torch.equal(load_file(out)["atom_energy"], expected)


def test_the_precision_of_the_network_can_be_chosen(potential, out):
    export_to_lammps(potential, out, torch.float32)
    tensors = load_file(out)
    assert tensors["embedding"].dtype == torch.float32
    assert tensors["atom_energy"].dtype == torch.float64


def hooked() -> Potential:
    model = SchNet(8, 8, 1, 8, 4.0)
    model.interactions[0].register_forward_hook(lambda *arguments: None)
    return Potential(model)


def property_only() -> Potential:
    model = SchNet(8, 8, 1, 8, 4.0, readout=None)
    head = AtomicValues(SchNet(8, 8, 1, 8, 4.0).readout.network)
    return Potential(model, properties={Target("charges"): head})


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Potential(SchNet.paper()), ValueError, "`potential` must have a cutoff for LAMMPS"),
        (lambda: Potential(SchNet(8, 8, 1, 8, 4.0, readout="mean")), TypeError, "sum over atoms.*AtomicMean"),
        (lambda: Potential(SchNet(8, 8, 1, 8, 4.0, dipole=True)), TypeError, "sum over atoms.*Dipole"),
        (hooked, TypeError, "an unchanged SchNet for LAMMPS: .*hooks"),
        (property_only, ValueError, "`potential` must predict energies.*charges"),
        (
            lambda: Ensemble([Potential(SchNet(8, 8, 1, 8, 4.0))] * 2),
            ValueError,
            "one potential.*ensemble of 2",
        ),
        (lambda: Potential(torch.nn.Bilinear(1, 1, 1)), TypeError, "`model` must have|must hold a SchNet"),
        (lambda: "absent.safetensors", FileNotFoundError, "absent.safetensors: no such"),
    ],
)
def test_what_lammps_cannot_evaluate_is_rejected(make, error, message, out):
    with pytest.raises(error, match=message):
        export_to_lammps(make(), out)
    assert not out.exists()


def test_a_file_for_lammps_is_no_checkpoint(potential, out):
    export_to_lammps(potential, out)
    with pytest.raises(ValueError, match="must hold a potential, got a LAMMPS model"):
        load(out)


def test_the_command_prints_the_lines_of_an_input_file(potential, out, tmp_path, capsys):
    save(potential, tmp_path / "model.safetensors")
    command = ["lammps", str(tmp_path / "model.safetensors"), str(out)]
    assert main(command) == 0
    assert f"pair_style schnet\npair_coeff * * {out} H C N" in capsys.readouterr().out
    assert main(command) == 2
    assert "which is never replaced; use another name" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "`MODEL` and `OUT`, or `--build`, must be given"),
        (["model.safetensors"], "`OUT` must be given with `MODEL`"),
        (["a,b", "new"], "`MODEL` must be one potential"),
    ],
)
def test_an_incomplete_command_is_rejected(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        save(Potential(SchNet(8, 8, 1, 8, 4.0)), name)
    assert main(["lammps", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_folder_without_lammps_is_rejected(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no LAMMPS headers, pair\.h is missing"):
        build_lammps_plugin(tmp_path)


def test_a_compiler_that_fails_is_named_with_its_first_error(tmp_path, monkeypatch):
    (tmp_path / "pair.h").write_text("#error this is no LAMMPS\n", encoding="utf-8")
    monkeypatch.setenv("PYG_SCHNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CXX", "false")
    with pytest.raises(RuntimeError, match=r"compiler 'false' failed with exit status 1"):
        build_lammps_plugin(tmp_path)
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(FileNotFoundError, match=r"'no-such-compiler' was found.*CXX"):
        build_lammps_plugin(tmp_path)
