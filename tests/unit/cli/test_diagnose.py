"""`vesuvius diagnose`: this machine is fine; planted faults come with their cure."""

import importlib.metadata

import pytest

from vesuvius.cli.main import main
from vesuvius.runtime import diagnose


def test_report_of_this_machine(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    status = main(["diagnose", "--path", str(tmp_path)])
    text = capsys.readouterr().out
    assert status == 0, text
    for word in ("Python", "torch", "CUDA", "processor", "memory", "torchvision", "GiB free"):
        assert word in text
    assert "0 faults" in text


def test_missing_folder_is_a_fault(tmp_path, capsys):
    assert main(["diagnose", "--path", str(tmp_path / "nowhere")]) == 1
    assert "1 fault" in capsys.readouterr().out


def test_compromised_and_absent_packages(monkeypatch):
    version = importlib.metadata.version

    def planted(name):
        if name == "edt":
            raise importlib.metadata.PackageNotFoundError(name)
        return "2.6.2" if name == "lightning" else version(name)

    monkeypatch.setattr(importlib.metadata, "version", planted)
    first = next(diagnose.check_packages())
    assert first.level == "fault"
    assert "lightning 2.6.2 (a compromised release)" in first.found
    assert "edt (absent)" in first.found
    assert "install" in first.cure


@pytest.mark.parametrize(
    ("driver", "cuda", "available", "level", "cure"),
    [
        ("", None, False, "ok", ""),
        ("580.1", None, False, "warn", "CUDA index"),
        ("580.1", "12.8", False, "fault", "update the driver"),
        ("580.1", "12.8", True, "ok", ""),
    ],
)
def test_driver_and_build(monkeypatch, driver, cuda, available, level, cure):
    import torch

    monkeypatch.setattr(diagnose, "nvidia_driver", lambda: driver)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    finding = list(diagnose.check_torch())[-1]
    assert (finding.name, finding.level) == ("CUDA", level)
    assert cure in finding.cure


def test_a_check_that_breaks_is_a_fault_not_a_crash(monkeypatch):
    def broken():
        raise ImportError("libcudart.so.12")

    monkeypatch.setattr(diagnose, "check_torch", broken)
    found = [f for f in diagnose.run_checks([]) if f.level == "fault"]
    assert [f.name for f in found] == ["torch"]
    assert "libcudart.so.12" in found[0].found
