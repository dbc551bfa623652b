"""Files of SchNetPack's weights: read where they hold tensors only, and never run."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pyg_schnet import SchNet

GOLDEN = Path(__file__).parent / "schnetpack_schnet.npz"
Z, POS = torch.tensor([8, 1, 1]), torch.eye(3, dtype=torch.float64)


@pytest.fixture(scope="module")
def weights():
    with np.load(GOLDEN) as file:
        return {k.removeprefix("weights/"): torch.from_numpy(v) for k, v in file.items() if "weights/" in k}


def lightning(weights):
    state = {f"model.{name}": tensor for name, tensor in weights.items()}
    return {"epoch": 3, "state_dict": state, "optimizer_states": [{"state": {}}]}


SAVED = {
    "weights.pt": lambda weights, path: torch.save(weights, path),
    "old.pt": lambda weights, path: torch.save(weights, path, _use_new_zipfile_serialization=False),
    "last.ckpt": lambda weights, path: torch.save(lightning(weights), path),
    "checkpoint-9.pth.tar": lambda weights, path: torch.save({"epoch": 9, "model": weights}, path),
    "weights.safetensors": lambda weights, path: save_file(weights, path),
}


@pytest.mark.parametrize("name", SAVED)
@pytest.mark.parametrize("kind", [str, Path])
def test_a_file_of_weights_is_a_door(weights, name, kind, tmp_path):
    SAVED[name](weights, tmp_path / name)
    read, direct = (
        SchNet.from_schnetpack(what, activation="silu") for what in (kind(tmp_path / name), weights)
    )
    assert torch.equal(read(Z, POS), direct(Z, POS))


class Hostile:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize(
    ("name", "inside"),
    [
        ("best_model", "model.state_dict()"),
        ("last.ckpt", 'model["state_dict"]'),
        ("checkpoint-9.pth.tar", 'model["model"]'),
    ],
)
@pytest.mark.parametrize("by", [torch.save, lambda held, path: path.write_bytes(pickle.dumps(held))])
def test_a_pickled_model_is_refused_with_a_way_out_and_not_run(name, inside, by, tmp_path):
    by({"model": Hostile(tmp_path / "hacked")}, tmp_path / name)
    with pytest.raises(ValueError, match=r"tensors.*Python.*objects") as told:
        SchNet.from_schnetpack(tmp_path / name)
    assert not (tmp_path / "hacked").exists()
    assert f'torch.load("{name}", map_location="cpu"); torch.save({inside}, "weights.pt")' in str(told.value)
    torch.load(tmp_path / name, weights_only=False) if by is torch.save else pickle.loads(
        (tmp_path / name).read_bytes()
    )
    assert (tmp_path / "hacked").exists()  # the trap works


def test_a_whole_model_is_refused_with_the_name_of_its_class(tmp_path):
    torch.save(SchNet(8, 8, 1, 8, 4.0), tmp_path / "best_inference_model")
    with pytest.raises(ValueError, match=r"pyg_schnet\.nn\.schnet\.SchNet"):
        SchNet.from_schnetpack(tmp_path / "best_inference_model")


def test_objects_inside_a_whole_model_are_read_and_not_run(tmp_path):
    model = SchNet(8, 8, 1, 8, 4.0)
    model.trap = Hostile(tmp_path / "hacked")
    torch.save(model, tmp_path / "best_model")
    with pytest.raises(ValueError, match="best_model: must hold"):
        SchNet.from_schnetpack(tmp_path / "best_model")
    assert not (tmp_path / "hacked").exists()
    torch.load(tmp_path / "best_model", weights_only=False)
    assert (tmp_path / "hacked").exists()  # the trap works


def test_a_module_that_holds_itself_is_refused(tmp_path):
    model = torch.nn.Module()
    model.weight = torch.nn.Parameter(torch.ones(2))
    model.add_module("representation", model)
    torch.save(model, tmp_path / "best_model")
    with pytest.raises(ValueError, match=r"best_model.*\(more"):
        SchNet.from_schnetpack(tmp_path / "best_model")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("cut.safetensors", b"\x08\0\0\0\0\0\0\0{", "is not a complete safetensors file"),
        ("empty.pt", b"", "is not a complete torch file"),
        ("cut.pt", None, "is not a complete torch file"),
    ],
)
def test_a_damaged_file_is_named(weights, name, content, message, tmp_path):
    path = tmp_path / name
    torch.save(weights, path)
    path.write_bytes(path.read_bytes()[:2000] if content is None else content)
    with pytest.raises(ValueError, match=message) as told:
        SchNet.from_schnetpack(path)
    assert str(path) in str(told.value)


def test_a_file_without_weights_or_none_at_all_is_named(tmp_path):
    torch.save(torch.ones(3), tmp_path / "tensor.pt")
    with pytest.raises(ValueError, match="state_dict"):
        SchNet.from_schnetpack(tmp_path / "tensor.pt")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pt.*no such"):
        SchNet.from_schnetpack("nowhere.pt")


@pytest.mark.parametrize("left", [0.3, 0.6, 0.99])
def test_a_file_that_was_cut_is_named(weights, left, tmp_path):
    file = tmp_path / "weights.pt"
    torch.save(weights, file)
    file.write_bytes(file.read_bytes()[: int(left * file.stat().st_size)])
    with pytest.raises(ValueError, match=r"weights\.pt"):
        SchNet.from_schnetpack(file)


@pytest.mark.parametrize("content", [b'{"a": 1}', b"3\n\nO 0 0 0\n"], ids=["json", "xyz"])
def test_a_file_of_text_is_not_said_to_hold_code(content, tmp_path):
    (tmp_path / "weights.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"weights\.pt.*weights"):
        SchNet.from_schnetpack(tmp_path / "weights.pt")
