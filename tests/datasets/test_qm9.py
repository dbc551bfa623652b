"""QM9 is what was published, in our units and PyG's words, whichever file it comes from."""

from __future__ import annotations

import csv
import importlib.util
import itertools
import pickle
import re
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch_geometric.datasets
from rdkit import Chem
from torch.testing import assert_close
from torch_geometric.loader import DataLoader

from pyg_schnet import RadiusGraph
from pyg_schnet.datasets import qm9
from pyg_schnet.datasets.cards.card import read_card
from pyg_schnet.datasets.qm9 import QM9
from pyg_schnet.datasets.qm9_files import TARGETS
from pyg_schnet.datasets.splits import random_split
from tests.datasets import qm9_small as small

SAMPLE = Path(__file__).parents[2] / "datasets/qm9/sample.xyz.tar.bz2"
SHARED = Path(__file__).parents[2] / "../shared/data/qm9"
PACKAGE = importlib.util.find_spec("qm9pack")
needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason="the reference data of QM9 are not beside the repository"
)
needs_package = pytest.mark.skipif(PACKAGE is None, reason="qm9pack is not installed: pyg-schnet[qm9]")
# Methane, as published and by a pocket calculator: 27.211386245988 eV, 0.529177210903 Å.
METHANE = {
    "A": 157.7118,  # GHz
    "B": 157.70997,
    "C": 157.70699,
    "mu": 0.0,  # D
    "alpha": 1.957520038547270869,  # 13.21 Bohr³
    "homo": -10.5498544475695476,  # -0.3877 Hartree
    "lumo": 3.1864533294051948,  # 0.1171 Hartree
    "gap": 13.7363077769747424,  # 0.5048 Hartree
    "r2": 9.902956603196013324,  # 35.3641 Bohr²
    "zpve": 1.217682323121717012,  # 0.044749 Hartree
    "U0": -1101.48779905431103284,  # -40.47893 Hartree
    "U": -1101.409756798557539256,  # -40.476062 Hartree
    "H": -1101.384042038555080596,  # -40.475117 Hartree
    "G": -1102.022965387610878836,  # -40.498597 Hartree
    "Cv": 6.469,  # cal/mol/K
}


@pytest.fixture(scope="module")
def sample():
    return QM9(source=SAMPLE, features=True, dtype=torch.float64)


@pytest.fixture(scope="module")
def first_of_gdb9(tmp_path_factory):
    """The first 19 molecules in PyG's layout; the next one of the reference data is broken on purpose."""
    folder = tmp_path_factory.mktemp("gdb9")
    table = (SHARED / "gdb9_first20.sdf.csv").read_text().splitlines(keepends=True)
    (folder / "gdb9.sdf.csv").write_text("".join(table[:20]))
    text = (SHARED / "gdb9_first20.sdf").read_text()
    (folder / "gdb9.sdf").write_text(text[: text.index("gdb_20_invalid")])
    shutil.copy(SHARED / "uncharacterized.txt", folder)
    return folder


@pytest.fixture(scope="module")
def by_sdf(first_of_gdb9):
    return QM9(source=first_of_gdb9 / "gdb9.sdf", features=True, dtype=torch.float64)


@pytest.fixture
def published(tmp_path, monkeypatch):
    """The small QM9 in the raw folder of ``tmp_path``, and its card."""

    def put(**changes):
        files = {**small.FILES, **changes.pop("files", {})}
        card = replace(small.card(files=files), **changes)
        monkeypatch.setattr(qm9, "read_card", lambda name: card)
        monkeypatch.setattr(qm9, "_SPLITS", {"schnet": (1, 0)})
        (tmp_path / "raw").mkdir(exist_ok=True)
        for name in ("dsgdb9nsd.xyz.tar.bz2", "uncharacterized.txt"):
            (tmp_path / "raw" / name).write_bytes(files[name])
        return tmp_path

    return put


def fields(dataset):
    """What each item holds, without what differs by construction."""
    return [item.to_dict() for item in dataset]


def equal(first, second):
    """Whether two data sets hold the same, to the bit."""
    one, other = fields(first), fields(second)
    return len(one) == len(other) and all(
        a.keys() == b.keys()
        and all(torch.equal(a[key], b[key]) if torch.is_tensor(a[key]) else a[key] == b[key] for key in a)
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("target", METHANE)
def test_methane_has_the_published_values_in_our_units(sample, target):
    value = getattr(sample[0], target)
    assert value.shape == (1,)
    assert value.dtype == torch.float64
    assert value.item() == pytest.approx(METHANE[target], rel=1e-15, abs=0)


def test_methane_is_where_and_what_was_published(sample):
    methane = sample[0]
    assert methane.pos[0].tolist() == [-0.0126981359, 1.0858041578, 0.0080009958]
    assert methane.z.tolist() == [6, 1, 1, 1, 1]
    assert methane.z.dtype == torch.long
    assert (methane.smiles, methane.name, methane.idx.tolist()) == ("C", "gdb_1", [0])
    assert methane.energy.item() == methane.U0.item()


def test_the_targets_have_the_order_that_was_published():
    assert tuple(METHANE) == TARGETS


def test_small_numbers_are_read_as_mathematica_wrote_them(sample):
    item = next(item for item in sample if item.name == "gdb_212")
    assert item.pos[0].tolist() == [2.1997e-6, 1.4462618059, 0.0098312216]


def test_positions_have_pytorchs_type_and_labels_double(sample):
    single = QM9(source=SAMPLE)
    assert single[0].pos.dtype == torch.float32
    assert single[0].U0.dtype == torch.float64
    assert torch.equal(single[7].pos, sample[7].pos.float())


def test_without_features_there_are_none():
    assert set(QM9(source=SAMPLE)[0].keys()) == {"z", "pos", "energy", *TARGETS, "idx", "name", "smiles"}


def test_features_have_pygs_shapes(sample):
    item = sample[0]
    assert set(item.keys()) - set(QM9(source=SAMPLE)[0].keys()) == {"x", "edge_index", "edge_attr", "y"}
    assert (item.x.shape, item.edge_index.shape, item.edge_attr.shape) == ((5, 11), (2, 8), (8, 4))
    assert item.y.shape == (1, 19)


def test_targets_of_pyg_are_in_its_order_and_units(sample):
    """Energies in eV, alpha in Bohr³, r2 in Bohr², and -17.1722 eV of atomisation."""
    expected = [METHANE[name] for name in ("mu", "alpha", "homo", "lumo", "gap", "r2", "zpve")]
    expected[1], expected[5] = 13.21, 35.3641
    expected += [METHANE[name] for name in ("U0", "U", "H", "G", "Cv")]
    expected += [hartree * 27.211386245988 for hartree in (-0.631066, -0.635279, -0.639058, -0.593572)]
    expected += [METHANE[name] for name in "ABC"]
    assert_close(sample[0].y[0], torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0)


def test_bonds_and_features_belong_to_the_atoms(sample):
    """Bonds are short, and every hydrogen has one."""
    for item in sample:
        source, target = item.edge_index
        assert float((item.pos[source] - item.pos[target]).norm(dim=1).max()) < 1.7
        assert (item.x[:, 5].long() == item.z).all()
        degree = torch.bincount(target, minlength=len(item.z))
        assert (degree[item.z == 1] == 1).all()
        assert item.x[:, 10].sum() == (item.z == 1).sum()


def test_a_batch_is_pygs(sample):
    batch = next(iter(DataLoader(sample, batch_size=3)))
    assert batch.edge_index.max() < len(batch.z)
    assert (batch.batch[batch.edge_index[0]] == batch.batch[batch.edge_index[1]]).all()
    assert batch.name == ["gdb_1", "gdb_2", "gdb_3"]
    assert batch.y.shape == (3, 19)


def test_a_graph_for_schnet_may_replace_the_bonds():
    item = QM9(source=SAMPLE, features=True, transform=RadiusGraph(5.0))[0]
    assert item.edge_index.shape == (2, 20)


@needs_shared
def test_the_sample_and_the_published_archive_give_the_same(sample):
    archive = QM9(source=SHARED / "dsgdb9nsd_first10.xyz.tar.bz2", features=True, dtype=torch.float64)
    assert len(archive) == 10
    assert equal(archive, sample[:10])


@needs_package
def test_the_sample_and_the_package_give_the_same(sample, tmp_path):
    part = Path(PACKAGE.submodule_search_locations[0]) / "data/qm9_part1.csv"
    with part.open(encoding="utf-8") as file:
        (tmp_path / "first.csv").write_text("".join(itertools.islice(file, 31)))
    assert equal(QM9(source=tmp_path / "first.csv", features=True, dtype=torch.float64), sample[:30])


@needs_shared
def test_the_sample_and_pygs_archive_give_the_same_but_for_rounded_positions(sample, by_sdf):
    assert len(by_sdf) == 19
    for rounded, exact in zip(by_sdf, sample, strict=False):
        assert_close(rounded.pos, exact.pos, rtol=0, atol=5.0001e-5)
        assert Chem.CanonSmiles(rounded.smiles) == Chem.CanonSmiles(exact.smiles)
        for key in set(exact.keys()) - {"pos", "smiles"}:
            value = exact[key]
            assert torch.equal(rounded[key], value) if torch.is_tensor(value) else rounded[key] == value


@pytest.fixture(scope="module")
def pyg(first_of_gdb9, tmp_path_factory):
    """PyG's own class, on the same files; skipped where it does not process them."""
    root = tmp_path_factory.mktemp("pyg")
    shutil.copytree(first_of_gdb9, root / "raw")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch_geometric.datasets.QM9(str(root))


@needs_shared
def test_pygs_class_gives_the_same(pyg, by_sdf):
    assert len(pyg) == len(by_sdf) == 19
    for theirs, ours in zip(pyg, by_sdf, strict=True):
        assert torch.equal(ours.z, theirs.z)
        assert torch.equal(ours.pos.float(), theirs.pos)
        assert torch.equal(ours.edge_index, theirs.edge_index)
        assert torch.equal(ours.edge_attr.argmax(1), theirs.edge_attr.argmax(1))
        assert torch.equal(ours.x[:, :6], theirs.x[:, :6])
        assert torch.equal(ours.x[:, 10], theirs.x[:, 10])
        assert (ours.name, ours.idx.item()) == (theirs.name, theirs.idx)
        # Float32, a Hartree that differs by 1e-8, and a kilocalorie of six digits.
        assert_close(ours.y.float(), theirs.y, rtol=2e-6, atol=1e-6)


@needs_shared
def test_hybridization_is_marked_where_pyg_has_zeros(pyg, by_sdf):
    """PyG reads the molecules without the step in which RDKit finds it, nor aromatic rings."""
    ethyne = 3
    assert pyg[ethyne].x[:2, 6:10].tolist() == [[0, 0, 0, 0], [0, 0, 0, 0]]
    assert by_sdf[ethyne].x[:2, 6:10].tolist() == [[0, 1, 0, 0], [0, 1, 0, 0]]
    assert sum(item.x[:, 6:10].abs().sum() for item in pyg) == 0


def test_isolated_atoms_are_those_of_the_paper_in_ev(sample):
    values = sample.isolated_atoms()
    assert (values.shape, values.dtype) == ((100,), torch.float64)
    assert values[1].item() == pytest.approx(-13.613121831439154724, rel=1e-15)  # -0.500273 Hartree
    assert values[6].item() == pytest.approx(-1029.863131055843750736, rel=1e-15)  # -37.846772 Hartree
    assert sample.isolated_atoms("G")[9].item() == pytest.approx(-2713.887987465239, rel=1e-15)
    assert values.nonzero().flatten().tolist() == [1, 6, 7, 8, 9]


def test_isolated_atoms_have_a_heat_capacity_and_no_vibrations(sample):
    assert sample.isolated_atoms("Cv")[[1, 6, 7, 8, 9]].tolist() == [2.981] * 5
    assert sample.isolated_atoms("zpve").abs().sum() == 0


@pytest.mark.parametrize("target", ["mu", "energy", "u0"])
def test_isolated_atoms_of_other_targets_are_refused(sample, target):
    with pytest.raises(ValueError, match=r"`target`.*published.*isolated.*atoms") as caught:
        sample.isolated_atoms(target)
    assert str(caught.value).endswith(f"atoms, zpve, U0, U, H, G, Cv; got '{target}'")


def test_all_but_the_uncharacterized_are_processed(published):
    dataset = QM9(published())
    assert [item.name for item in dataset] == ["gdb_1", "gdb_3"]
    assert dataset._data.idx.tolist() == [0, 2]


@pytest.mark.parametrize("keep", [None, lambda item: item.name == "gdb_3"])
def test_the_uncharacterized_are_named_whatever_a_filter_keeps(published, monkeypatch, keep):
    monkeypatch.setattr(qm9, "MOLECULES", 3)
    root = published()
    assert QM9(root, pre_filter=keep).uncharacterized().tolist() == [1]
    assert QM9(root, pre_filter=keep)[:1].uncharacterized().tolist() == [1]  # as stored


def test_a_part_of_qm9_does_not_tell_the_uncharacterized(sample):
    message = f"`source` must be the whole QM9 to know which molecules are left out, got {SAMPLE}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        sample.uncharacterized()


@pytest.mark.parametrize(("records", "count"), [(3, 2), (1, 2)])
def test_an_incomplete_set_is_refused_and_not_stored(published, records, count):
    root = published(records=records)
    with pytest.raises(ValueError, match=rf"{records}.*molecules.*{count}"):
        QM9(root)
    assert not list((root / "processed").glob("*.safetensors"))


def test_qm9_has_130831_molecules():
    assert read_card("qm9").records == 130_831


def test_a_molecule_that_is_there_twice_is_refused(tmp_path):
    path = tmp_path / "twice.tar"
    path.write_bytes(small.tar([("a.xyz", small.XYZ[3].encode()), ("b.xyz", small.XYZ[3].encode())], "w"))
    with pytest.raises(ValueError, match=r"twice\.tar.*molecule.*once.*gdb_3.*twice"):
        QM9(source=path)


def test_all_molecules_of_gdb9_without_the_list_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(qm9, "read_card", lambda name: small.card())  # of two molecules
    path = tmp_path / "all.tar.bz2"
    path.write_bytes(small.archive())
    message = (
        f"{path}: must come with its list of uncharacterized molecules, for it holds 3; put "
        "uncharacterized.txt beside it"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        QM9(source=path)
    (tmp_path / "uncharacterized.txt").write_bytes(small.FILES["uncharacterized.txt"])
    assert len(QM9(source=path)) == 2


@pytest.mark.parametrize(
    ("name", "sizes", "digest"),
    [
        (
            "schnet",
            (110_462, 1_000, 19_369),
            "59395dd65a24056a5ccdfe5f3adc2c95d0e0239ee81e9cbccad2837e6961fc4a",
        ),
        (
            "custom",
            (110_000, 10_000, 10_831),
            "a27ca9edbc99d4ce729a84e8d4651847d94f80310f5982b3d5dc26543f860ff8",
        ),
    ],
)
def test_the_splits_are_complete_disjoint_and_the_same_each_time(name, sizes, digest):
    dataset = QM9(source=SAMPLE)
    dataset.source, dataset._ids = "auto", torch.arange(1, 130_832)  # as if it were all of QM9
    split = dataset.official_splits()[name]
    assert tuple(map(len, split)) == sizes
    assert torch.equal(torch.cat(split).sort().values, torch.arange(130_831))
    assert split.sha256() == digest
    assert split.sha256() == random_split(130_831, *sizes[:2], seed=0).sha256()


def test_a_split_is_of_the_same_molecules_in_any_order(monkeypatch):
    monkeypatch.setattr(qm9, "_SPLITS", {"schnet": (40, 20)})
    dataset = QM9(source=SAMPLE)
    dataset.source = "auto"
    ordered = dataset.official_splits()["schnet"]
    ids = dataset._ids
    order = torch.randperm(len(ids), generator=torch.Generator().manual_seed(1))
    dataset._ids = ids[order]
    for part, other in zip(ordered, dataset.official_splits()["schnet"], strict=True):
        assert ids[part].tolist() == dataset._ids[other].sort().values.tolist()


def test_the_splits_are_stored(published):
    split = QM9(published()).split("schnet")
    assert [len(part) for part in split] == [1, 0, 1]
    assert QM9(published()).split("schnet").sha256() == split.sha256()


def test_a_part_of_qm9_has_no_splits(sample):
    with pytest.raises(ValueError, match=r"`split`.*published"):
        sample.split("schnet")


@pytest.mark.parametrize("memory_map", [False, True])
def test_what_is_stored_is_what_was_read(sample, tmp_path, memory_map):
    options = {"source": SAMPLE, "features": True, "dtype": torch.float64, "memory_map": memory_map}
    assert equal(QM9(tmp_path, **options), sample)
    assert equal(QM9(tmp_path, **options), sample)


def test_what_is_stored_is_not_read_again(tmp_path, monkeypatch):
    first = QM9(tmp_path, source=SAMPLE)
    with monkeypatch.context() as patch:
        patch.delattr(qm9, "open_source")
        assert equal(QM9(tmp_path, source=SAMPLE), first)
    assert equal(QM9(tmp_path, source=SAMPLE, force_reload=True), first)


def test_features_are_stored_beside(sample, tmp_path):
    bare = QM9(tmp_path, source=SAMPLE)
    whole = QM9(tmp_path, source=SAMPLE, features=True, dtype=torch.float64)
    assert equal(whole, sample)
    assert equal(QM9(tmp_path, source=SAMPLE), bare)
    assert sorted(path.name for path in (tmp_path / "processed").glob("*.safetensors")) == [
        "qm9.safetensors",
        "qm9_features.safetensors",
    ]


def keep_fluorine(item):
    return bool((item.z == 9).any())


def add_weight(item):
    item.weight = item.z.sum().view(1)
    return item


@pytest.mark.parametrize("root", [None, "folder"])
def test_items_may_be_filtered_and_changed_before_they_are_stored(sample, tmp_path, root):
    folder = None if root is None else tmp_path / root
    options = {"features": True, "dtype": torch.float64}
    dataset = QM9(folder, None, add_weight, keep_fluorine, source=SAMPLE, **options)
    expected = [item for item in sample if 9 in item.z]
    assert 5 <= len(expected) == len(dataset)
    for ours, item in zip(dataset, expected, strict=True):
        assert torch.equal(ours.edge_index, item.edge_index)
        assert torch.equal(ours.y, item.y)
        assert (ours.name, ours.smiles, ours.weight.item()) == (item.name, item.smiles, int(item.z.sum()))


def test_a_worker_gets_the_same(sample, tmp_path):
    mapped = QM9(tmp_path, source=SAMPLE, features=True, dtype=torch.float64, memory_map=True)
    for dataset in (sample, mapped):
        assert equal(pickle.loads(pickle.dumps(dataset)), sample)


@pytest.mark.parametrize("pieces", [1, 7, 1000])
def test_the_size_of_the_pieces_does_not_matter(sample, tmp_path, monkeypatch, pieces):
    monkeypatch.setattr(qm9.open_source.__globals__["qm9_files"], "_MOLECULES_AT_ONCE", pieces)
    assert equal(QM9(source=SAMPLE, features=True, dtype=torch.float64), sample)
    assert equal(QM9(tmp_path, source=SAMPLE, features=True, dtype=torch.float64), sample)


def test_smiles_of_another_molecule_are_refused_with_its_number(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(small.tar([("1.xyz", small.XYZ[1].replace("C\tC\t", "CC\tCC\t").encode())], "w"))
    assert len(QM9(source=path)) == 1  # nobody looks at the bonds
    with pytest.raises(ValueError, match=r"^a\.tar.*gdb_1.*`smiles`.*molecule"):
        QM9(source=path, features=True)


@pytest.mark.parametrize("features", [False, True])
def test_a_block_that_is_no_molecule_is_refused_with_its_number(tmp_path, features):
    (tmp_path / "a.sdf.csv").write_text(small.TABLE)
    (tmp_path / "a.sdf").write_text(small.SDF.replace("  1  5  1  0", "  1  9  1  0"))
    with pytest.raises(ValueError, match=r"^a\.sdf.*gdb_1.*MDL.*molecule.*another"):
        QM9(source=tmp_path / "a.sdf", features=features)


def test_a_bond_of_another_kind_is_refused_with_its_number(tmp_path):
    (tmp_path / "a.sdf.csv").write_text(small.TABLE)
    (tmp_path / "a.sdf").write_text(small.SDF.replace("  1  5  1  0", "  1  5  8  0"))
    with pytest.raises(ValueError, match=r"^a\.sdf.*gdb_1.*bonds"):
        QM9(source=tmp_path / "a.sdf", features=True)


def test_a_damaged_number_is_refused_with_its_file(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(small.tar([("1.xyz", small.XYZ[1].replace("13.21", "nan").encode())], "w"))
    with pytest.raises(ValueError, match=r"^a\.tar.*gdb_1.*15.*finite.*numbers.*'nan'"):
        QM9(source=path)


@pytest.mark.parametrize("root", [None, "folder"])
def test_a_file_without_molecules_is_refused(tmp_path, root):
    (tmp_path / "a.csv").write_text(small.PACKAGE.split("\n")[0])
    with pytest.raises(ValueError, match=r"at least.*structure"):
        QM9(None if root is None else tmp_path / root, source=tmp_path / "a.csv")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    if PACKAGE is None:
        pytest.skip("qm9pack is not installed: pyg-schnet[qm9]")
    return QM9(tmp_path_factory.mktemp("qm9"), source="qm9pack")


@pytest.mark.nightly
def test_qm9_is_whole(whole):
    assert len(whole) == 130_831
    sizes = whole.slices["z"].diff()
    assert (int(sizes.min()), int(sizes.max()), int(sizes.sum())) == (3, 29, 2_359_210)
    assert whole.elements() == [1, 6, 7, 8, 9]


@pytest.mark.nightly
def test_the_energies_of_atomisation_have_the_known_mean_and_spread(whole):
    """PyG and SchNetPack users know -76.116 and 10.324 eV."""
    data = whole._data
    molecule = torch.repeat_interleave(torch.arange(len(whole)), whole.slices["z"].diff())
    atoms = torch.zeros(len(whole), dtype=torch.float64)
    atoms.index_add_(0, molecule, whole.isolated_atoms()[data.z])
    energy = data.U0 - atoms
    assert float(energy.mean()) == pytest.approx(-76.116, abs=1e-3)
    assert float(energy.std()) == pytest.approx(10.324, abs=1e-3)


@pytest.mark.nightly
def test_qm9_has_6094_isomers_of_c7h10o2(whole):
    formula = torch.stack([torch.zeros(len(whole), dtype=torch.long)] * 10, dim=1)
    molecule = torch.repeat_interleave(torch.arange(len(whole)), whole.slices["z"].diff())
    formula.index_put_((molecule, whole._data.z), torch.ones_like(molecule), accumulate=True)
    assert int((formula[:, [1, 6, 7, 8, 9]] == torch.tensor([10, 7, 0, 2, 0])).all(1).sum()) == 6094


@pytest.mark.nightly
def test_qm9_tells_its_five_elements_apart(whole):
    assert whole.references().rank == 5


@pytest.mark.nightly
@needs_shared
def test_qm9_lacks_the_molecules_of_the_list(whole):
    lines = (SHARED / "uncharacterized.txt").read_text().splitlines()[9:-1]
    assert (whole.uncharacterized() + 1).tolist() == sorted(int(line.split()[0]) for line in lines)
    assert len(whole.uncharacterized()) == 3054


@pytest.mark.nightly
def test_the_stored_splits_of_qm9_are_complete(whole):
    for name in ("schnet", "custom"):
        split = whole.split(name)
        assert torch.equal(torch.cat(split).sort().values, torch.arange(130_831))


@pytest.mark.nightly
@needs_package
def test_all_numbers_of_qm9_are_those_of_the_package(whole):
    """Python's csv and float, a molecule in a thousand."""
    folder = Path(PACKAGE.submodule_search_locations[0]) / "data"
    names = ("RotA_GHz", "Dipole_debye", "HOMO_au", "InternalEnergy_0K_au", "Heatcapacity_Cv_cal_mol_K")
    factors = (1.0, 1.0, 27.211386245988, 27.211386245988, 1.0)
    number = 0
    for path in sorted(folder.glob("qm9_part*.csv")):
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if number % 1000 == 0:
                    item = whole[number]
                    assert item.idx.item() == int(row["Index"]) - 1
                    assert item.smiles == row["SMILES"]
                    values = [item[name].item() for name in ("A", "mu", "homo", "U0", "Cv")]
                    published = [float(row[name]) * f for name, f in zip(names, factors, strict=True)]
                    assert values == published
                number += 1
    assert number == len(whole)
