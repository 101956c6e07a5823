"""`vesuvius petct`: output and errors of its actions."""

import json

import pytest

from vesuvius.cli.main import main


def test_phantom_goes_on_and_refuses_other_settings(tmp_path, capsys):
    base = ["petct", "phantom", str(tmp_path / "p"), "--slices", "2", "--size", "32"]
    assert main([*base, "--patients", "1"]) == 0
    assert "2 slices written, 0 were there" in capsys.readouterr().out
    assert main([*base, "--patients", "2"]) == 0
    assert "2 slices written, 2 were there" in capsys.readouterr().out
    assert main([*base, "--seed", "1"]) == 2
    assert "holds a phantom with seed=0, asked for is 1" in capsys.readouterr().err
    assert json.loads((tmp_path / "p" / "phantom.json").read_text())["size"] == 32


def test_errors_are_one_line_without_traceback(tmp_path, capsys):
    assert main(["petct", "split", str(tmp_path / "none"), str(tmp_path / "out")]) == 2
    assert "is no folder" in capsys.readouterr().err
    assert main(["petct", "evaluate", str(tmp_path), "--out", str(tmp_path / "o")]) == 2
    assert "is no training run" in capsys.readouterr().err
    assert main(["petct", "strip-vgg", str(tmp_path / "x.pth"), str(tmp_path / "y.pth")]) == 2
    assert "no such file. Nothing is downloaded" in capsys.readouterr().err


def test_an_action_is_needed(capsys):
    with pytest.raises(SystemExit):
        main(["petct"])
    assert "ACTION" in capsys.readouterr().err


def test_a_run_of_another_task_is_refused(tmp_path, capsys):
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "config.yaml").write_text(
        "module:\n  _target_: vesuvius.modules.surface.SurfaceModule\n"
    )
    assert main(["petct", "evaluate", str(tmp_path), "--out", str(tmp_path / "o")]) == 2
    assert "no CT-PET network; use infer.py" in capsys.readouterr().err
