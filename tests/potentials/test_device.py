"""Devices are checked before any work, with one clear line."""

import subprocess
import sys

import pytest
import torch
from ase.build import molecule
from ase.io import write

from pyg_schnet import Potential, SchNet, cli, load
from pyg_schnet.potentials.checkpoint import save
from pyg_schnet.potentials.device import check_device
from pyg_schnet.simulation import SchNetCalculator
from pyg_schnet.training.config import FabricConfig
from pyg_schnet.training.distributed import Processes


@pytest.fixture
def devices(monkeypatch):
    """Two GPUs of CUDA, and Apple's one; no Intel's."""
    for kind, count in {"cuda": 2, "mps": 1, "xpu": 0}.items():
        monkeypatch.setattr(getattr(torch, kind), "device_count", lambda count=count: count)


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    save(Potential(SchNet(8, 8, 1, 12, 4.0)), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize("name", ["cpu", "cuda", "cuda:0", "cuda:1"])
def test_devices_that_exist_are_accepted(name, devices):
    assert check_device(name) == torch.device(name)
    assert check_device(torch.device(name)) == torch.device(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cuad", "`device` must be 'cpu', 'cuda', 'cuda:1' or another device of PyTorch's, got 'cuad'"),
        ("cuda:x", "`device` must be 'cpu', 'cuda', 'cuda:1' or another device of PyTorch's, got 'cuda:x'"),
        ("", "`device` must be 'cpu', 'cuda', 'cuda:1' or another device of PyTorch's, got ''"),
        ("cuda:7", "`device` must be from 'cuda:0' to 'cuda:1' here, got 'cuda:7'"),
        ("xpu", "`device` must be 'cpu' here, got 'xpu': PyTorch finds no such device"),
        ("meta", "`device` must be 'cpu' here, got 'meta': PyTorch finds no such device"),
        ("mps:1", "`device` must be 'mps:0' here, got 'mps:1'"),
        (
            "mps",  # PyTorch has no float64 there, and no such device in builds for other machines
            "`device` must be a device with float64, in which energies are summed, got 'mps', which has "
            "none; use 'cpu'",
        ),
    ],
)
def test_others_get_one_clear_line(name, message, devices):
    with pytest.raises(ValueError, match=r"^`device`") as error:
        check_device(name)
    assert str(error.value) == message


@pytest.mark.parametrize("name", ["cuda:99", "gpu"])
def test_loading_checks_the_device(name, checkpoint):
    makers = {
        "load": lambda: load(checkpoint, name),
        "calculator": lambda: SchNetCalculator(checkpoint, device=name),
        "calculator of a potential": lambda: SchNetCalculator(load(checkpoint), device=name),
    }
    for make in makers.values():
        with pytest.raises(ValueError, match=rf"`device` must be .*, got '{name}'"):
            make()


@pytest.mark.parametrize("name", ["cuda:99", "gpu", "mps"])
@pytest.mark.parametrize("command", ["predict", "relax", "md", "evaluate", "check"])
def test_commands_name_a_device_that_is_not_there(command, name, checkpoint, tmp_path, capsys):
    if name == "mps" and torch.mps.device_count():
        pytest.skip("this machine has the device")
    write(tmp_path / "in.xyz", molecule("CH3CH2OH"))
    files = [tmp_path / "in.xyz", tmp_path / "out.xyz"][: 1 if command in ("evaluate", "check") else 2]
    arguments = [command, str(checkpoint), *map(str, files), "--device", name]
    assert cli.main(arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "`--device` must be " in lines[0]
    assert f"got '{name}'" in lines[0]


@pytest.mark.process
def test_a_device_without_kernels_is_one_line_of_a_command(checkpoint, tmp_path):
    write(tmp_path / "in.xyz", molecule("CH3CH2OH"))
    # As if the CPU were an old GPU with Triton.
    code = (
        "import sys, types, torch; from pyg_schnet import cli\n"
        "from pyg_schnet.kernels import availability as a\n"
        "torch.cuda.get_device_capability = lambda device: (7, 5)\n"
        "a.import_module = lambda name: types.SimpleNamespace(__version__='3.6.0')\n"
        "a.library = lambda dtype: a.missing_on(torch.device('cuda:0')) and None\n"
        "sys.exit(cli.main(sys.argv[1:]))"
    )
    arguments = ["predict", str(checkpoint), str(tmp_path / "in.xyz"), str(tmp_path / "out.xyz"), "--quiet"]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stderr.splitlines()
    assert line == (
        "no kernels are in use on cuda:0; plain PyTorch is, which is slower: kernels need a GPU of compute "
        "capability 8.0 or newer, cuda:0 has 7.5"
    )


def test_one_gpu_of_several_is_trained_on(devices, monkeypatch):
    made = {}
    monkeypatch.setattr(Processes, "__init__", lambda self, fabric: None)
    monkeypatch.setattr("pyg_schnet.training.distributed.Fabric", _recorder(made))
    Processes.start(FabricConfig("cuda:1"))
    assert (made["accelerator"], made["devices"]) == ("cuda", [1])
    with pytest.raises(ValueError, match=r"`fabric.accelerator` must be 'cuda' for 2 processes.*'cuda:1'"):
        Processes.start(FabricConfig("cuda:1", devices=2))
    with pytest.raises(ValueError, match=r"`fabric.accelerator` must be from 'cuda:0' to 'cuda:1' here"):
        Processes.start(FabricConfig("cuda:2"))


def _recorder(made):
    class Recorder:
        world_size = 1

        def __init__(self, **options):
            made.update(options)

    return Recorder
