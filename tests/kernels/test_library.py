"""Kernels are compiled once and cached; where they cannot be, torch computes, and a reason is returned."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from pyg_schnet import Potential, SchNet
from pyg_schnet.kernels import find_pairs, has_kernels, library, unavailable_reason

module = sys.modules["pyg_schnet.kernels.c.library"]
LIKE = torch.zeros(1)
LOAD = (
    "import torch; from pyg_schnet.kernels import has_kernels, unavailable_reason; like = torch.zeros(1); "
    "print(has_kernels(like) or unavailable_reason(like))"
)


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """A cache of kernels of its own, and nothing loaded."""
    library.cache_clear()
    monkeypatch.setattr(module, "_reasons", {})
    monkeypatch.delenv("PYG_SCHNET_NATIVE", raising=False)
    monkeypatch.setenv("PYG_SCHNET_CACHE", str(tmp_path / "cache"))
    yield tmp_path
    library.cache_clear()


def compiler(folder, *lines):
    """A program that stands in for a compiler."""
    path = folder / "cc"
    path.write_text("\n".join(["#!/bin/sh", *lines]) + "\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


@pytest.fixture
def compilations(fresh, monkeypatch):
    """Count how often the compiler runs, which does not optimize, to be fast."""
    real = os.environ.get("CC") or "cc"
    monkeypatch.setenv("CC", compiler(fresh, f"echo x >> {fresh}/calls", f'exec {real} "$@" -O0'))
    return lambda: (fresh / "calls").read_text().count("x") if (fresh / "calls").exists() else 0


def in_new_process(environment=None):
    """Load the kernels where a signal ends nothing but a process of its own."""
    out = subprocess.run(
        [sys.executable, "-c", LOAD],
        env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert out.returncode == 0, out
    return out.stdout.strip(), out.stderr


def only_library(fresh):
    (kept,) = (fresh / "cache").iterdir()
    return kept


@pytest.mark.usefixtures("fresh")
def test_kernels_can_be_switched_off(monkeypatch):
    monkeypatch.setenv("PYG_SCHNET_NATIVE", "0")
    assert not has_kernels(LIKE)
    assert unavailable_reason(LIKE) == "switched off by PYG_SCHNET_NATIVE=0"


@pytest.mark.usefixtures("fresh")
def test_a_missing_compiler_is_told(monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler")
    assert not has_kernels(LIKE)
    assert unavailable_reason(LIKE) == "no C compiler was found; install gcc or clang, or set the variable CC"


@pytest.mark.usefixtures("fresh")
def test_a_compiler_in_open_quotes_is_told(monkeypatch):
    monkeypatch.setenv("CC", "'cc")
    assert not has_kernels(LIKE)
    assert (
        unavailable_reason(LIKE) == 'the variable CC must name a compiler, got "\'cc" (No closing quotation)'
    )


@pytest.mark.process
@pytest.mark.usefixtures("fresh")
def test_an_empty_name_of_a_compiler_is_that_of_cc(monkeypatch):
    monkeypatch.setenv("CC", " ")
    assert has_kernels(LIKE)


def test_the_first_line_of_a_compilers_complaint_is_told(fresh, monkeypatch):
    monkeypatch.setenv("CC", compiler(fresh, "echo 'fatal: no float today' >&2", "echo more >&2", "exit 1"))
    assert not has_kernels(LIKE)
    assert unavailable_reason(LIKE).endswith(": fatal: no float today")
    assert "\n" not in unavailable_reason(LIKE)
    assert list((fresh / "cache").iterdir()) == []


@pytest.mark.parametrize(
    "complaint", ["echo >&2", "printf '\\377\\n' >&2", "true"], ids=["blank", "binary", "none"]
)
def test_a_compiler_may_fail_without_a_readable_word(fresh, monkeypatch, complaint):
    monkeypatch.setenv("CC", compiler(fresh, complaint, "exit 1"))
    assert not has_kernels(LIKE)
    assert "exit status 1" in unavailable_reason(LIKE)
    assert "-march" not in unavailable_reason(LIKE)  # nor any other option: the line is to be read


def test_a_compiler_that_writes_no_library_is_told(fresh, monkeypatch):
    monkeypatch.setenv("CC", compiler(fresh, "exit 0"))
    assert not has_kernels(LIKE)
    assert unavailable_reason(LIKE)


def test_a_failed_compilation_is_not_tried_again(fresh, monkeypatch):
    monkeypatch.setenv("CC", compiler(fresh, f"echo x >> {fresh}/calls", "exit 1"))
    for _ in range(3):
        has_kernels(LIKE)
    assert (fresh / "calls").read_text() == "x\n"


def test_the_library_is_kept_where_the_variable_says_and_compiled_once(fresh, compilations):
    for _ in range(2):
        library.cache_clear()
        assert has_kernels(LIKE)
    assert compilations() == 1
    kept = only_library(fresh)
    assert kept.name.startswith("kernels-float-")
    assert kept.suffix == ".so"


@pytest.mark.process
def test_a_temporary_cache_is_gone_when_the_program_ends(tmp_path):
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "temporary").mkdir()
    places = {"PYG_SCHNET_CACHE": str(tmp_path / "file" / "cache"), "TMPDIR": str(tmp_path / "temporary")}
    environment = {**os.environ, **places}
    environment.pop("PYG_SCHNET_NATIVE", None)
    out = subprocess.run([sys.executable, "-c", LOAD], env=environment, capture_output=True, text=True)
    assert out.stdout == "True\n"
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.process
@pytest.mark.parametrize("damage", ["empty", "cut in half", "one bit"])
def test_a_damaged_library_is_never_loaded_and_made_again(fresh, compilations, damage):
    assert has_kernels(LIKE)
    kept = only_library(fresh)
    whole = kept.read_bytes()
    middle = len(whole) // 2
    content = {
        "empty": b"",
        "cut in half": whole[:middle],
        "one bit": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
    }[damage]
    kept.unlink()  # the loaded file stays whole
    kept.write_bytes(content)
    kept.chmod(0o700)
    assert in_new_process() == ("True", "")
    assert compilations() == 2
    assert only_library(fresh).read_bytes() != content
    assert in_new_process() == ("True", "")
    assert compilations() == 2


@pytest.mark.parametrize("broken", ["no-such-compiler", "false"], ids=["missing", "failing"])
@pytest.mark.usefixtures("compilations")
def test_a_kept_library_is_used_without_a_compiler(fresh, monkeypatch, broken):
    assert has_kernels(LIKE)
    library.cache_clear()
    monkeypatch.setenv("CC", broken)
    assert has_kernels(LIKE)
    assert [path.name for path in (fresh / "cache").iterdir()] == [only_library(fresh).name]


def test_a_library_of_another_processor_is_not_used(fresh, compilations, monkeypatch):
    read = Path.read_text

    def of_another(path, *arguments, **named):
        text = read(path, *arguments, **named)
        return text.replace("flags\t", "flags\t\t: other") if str(path) == "/proc/cpuinfo" else text

    if "flags\t" not in read(Path("/proc/cpuinfo")):
        pytest.skip("needs an x86 processor under Linux, which /proc/cpuinfo describes by flags")
    assert has_kernels(LIKE)
    library.cache_clear()
    monkeypatch.setattr(Path, "read_text", of_another)
    assert has_kernels(LIKE)
    assert compilations() == 2
    library.cache_clear()
    monkeypatch.setattr(Path, "read_text", read)
    assert has_kernels(LIKE)
    assert compilations() == 2
    assert len(list((fresh / "cache").iterdir())) == 2


OTHERS = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs owners and modes of files")


def give_to_another_user(path):
    if os.geteuid() != 0:
        pytest.skip("needs root, to give files to another user")
    os.chown(path, 12345, 12345)


@OTHERS
@pytest.mark.parametrize("change", ["others may write", "another's", "a link"])
def test_a_library_that_others_may_have_written_is_not_loaded(fresh, compilations, change):
    assert has_kernels(LIKE)
    kept = only_library(fresh)
    if change == "another's":
        give_to_another_user(kept)
    elif change == "a link":
        kept.rename(fresh / "elsewhere.so")
        kept.symlink_to(fresh / "elsewhere.so")
    else:
        kept.chmod(0o702)
    library.cache_clear()
    assert has_kernels(LIKE)
    assert compilations() == 2


@pytest.mark.process
@OTHERS
@pytest.mark.parametrize("change", ["group may write", "others may write", "another's"])
def test_a_cache_that_others_may_write_to_is_not_used(fresh, compilations, change):
    assert has_kernels(LIKE)
    kept = only_library(fresh)
    if change == "another's":
        give_to_another_user(kept.parent)
    else:
        kept.parent.chmod(0o770 if change == "group may write" else 0o707)
    found, told = in_new_process()
    assert found == "True"
    assert compilations() == 2
    assert only_library(fresh) == kept
    assert told.count("\n") == 1
    assert str(kept.parent) in told
    assert "PYG_SCHNET_CACHE" in told


@OTHERS
def test_others_may_not_write_to_a_kept_library_whatever_the_umask(fresh, compilations):
    before = os.umask(0)
    try:
        assert has_kernels(LIKE)
    finally:
        os.umask(before)
    for path in (fresh / "cache", only_library(fresh)):
        assert not path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    library.cache_clear()
    assert has_kernels(LIKE)
    assert compilations() == 1


@pytest.mark.usefixtures("fresh")
def test_missing_kernels_are_logged_once(monkeypatch, caplog):
    monkeypatch.setenv("CC", "no-such-compiler")
    for _ in range(3):
        assert not has_kernels(LIKE)
        assert not has_kernels(LIKE.double())
        library.cache_clear()
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "not in use" in record.message
    assert "install gcc" in record.message


@pytest.mark.usefixtures("fresh")
def test_kernels_that_are_switched_off_are_no_news(monkeypatch, caplog):
    monkeypatch.setenv("PYG_SCHNET_NATIVE", "0")
    assert not has_kernels(LIKE)
    assert caplog.records == []


@pytest.mark.process
@pytest.mark.usefixtures("fresh")
def test_missing_kernels_are_shown_where_logging_is_not_configured():
    found, told = in_new_process({"CC": "no-such-compiler"})
    assert "install gcc" in found
    assert told.count("\n") == 1
    assert found in told


@pytest.mark.process
def test_two_processes_at_once_both_get_kernels(fresh):
    command = [sys.executable, "-c", LOAD]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, env=environment, **pipes) for _ in range(2)]
    results = [process.communicate(timeout=120) for process in processes]
    assert [out.strip() for out, _ in results] == ["True", "True"], results
    assert [path.suffix for path in (fresh / "cache").iterdir()] == [".so"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64])
def test_other_types_have_no_kernels(dtype):
    like = torch.zeros(1, dtype=dtype)
    assert not has_kernels(like)
    assert unavailable_reason(like) == f"there are kernels for float32 and float64 only, not for {dtype}"


@pytest.mark.parametrize("training", [True, False])
def test_without_kernels_results_are_the_same(fresh, monkeypatch, randomize, ethanol, training):
    arguments = {"hidden_channels": 8, "num_filters": 8, "num_interactions": 2, "num_gaussians": 12}
    model = randomize(SchNet(**arguments, cutoff=4.0, filters="spline").double())
    potential = Potential(model).train(training).compile()

    def results():
        potential.zero_grad()
        out = potential(ethanol)
        if training:
            (out["energy"].sum() + out["forces"].square().sum()).backward()
        gradients = {name: p.grad for name, p in potential.named_parameters() if p.grad is not None}
        return {**{name: value.detach() for name, value in out.items()}, **gradients}

    monkeypatch.setenv("PYG_SCHNET_NATIVE", "0")
    found = results()
    assert potential.why_eager() == "switched off by PYG_SCHNET_NATIVE=0"
    allowed = torch.ones(100, dtype=torch.bool)
    assert find_pairs(ethanol.z, allowed, ethanol.pos, None, None, None) is None
    assert len(potential.compiled) == 0
    monkeypatch.undo()
    library.cache_clear()
    expected = results()
    assert potential.why_eager() is None
    for name, value in expected.items():  # sums in another order: 1e-13 was measured
        assert_close(found[name], value, atol=1e-11 * float(value.abs().max()), rtol=0)
