"""The mean of checkpoints, by hand."""

import pytest
import torch

from vesuvius.cli.main import main
from vesuvius.errors import CheckpointError, ConfigError
from vesuvius.runtime.soup import make_soup
from vesuvius.runtime.weights import load_network


class Net(torch.nn.Module):
    def __init__(self, value, size=2):
        super().__init__()
        self.linear = torch.nn.Linear(size, 1)
        self.norm = torch.nn.BatchNorm1d(1)
        torch.nn.init.constant_(self.linear.weight, value)
        self.norm.running_mean.fill_(value)
        self.norm.num_batches_tracked.fill_(int(value))


def save(path, value, *, size=2, spoiled=False):
    state = {f"model.{k}": v for k, v in Net(value, size).state_dict().items()}
    if spoiled:
        state["model.linear.weight"] = state["model.linear.weight"] * float("nan")
    torch.save({"state_dict": state, "global_step": 3}, path)
    return path


@pytest.fixture
def paths(tmp_path):
    return [save(tmp_path / f"{value}.ckpt", value) for value in (1.0, 2.0, 6.0)]


@pytest.mark.parametrize(("weights", "expected"), [(None, 3.0), ([2, 1, 1], 2.5)])
def test_weights_and_norm_statistics_are_averaged(paths, tmp_path, weights, expected):
    out = make_soup(paths, tmp_path / "soup.ckpt", weights=weights)
    network = load_network(Net(0.0), out)
    assert network.linear.weight.flatten().tolist() == [expected] * 2
    assert network.norm.running_mean.item() == expected
    assert network.norm.num_batches_tracked.item() == 1  # of the first
    assert network.linear.weight.dtype == torch.float32
    content = torch.load(out, weights_only=True)
    assert [source["path"] for source in content["soup"]["of"]] == [str(p) for p in paths]


def test_the_command_writes_the_file(paths, tmp_path, capsys):
    out = tmp_path / "soup.ckpt"
    assert main(["soup", *map(str, paths), "--out", str(out)]) == 0
    assert "mean of 3 checkpoints" in capsys.readouterr().out
    assert out.is_file()
    assert not list(tmp_path.glob("*.partial"))


def test_what_cannot_be_averaged_is_refused(paths, tmp_path):
    out = tmp_path / "soup.ckpt"
    other = save(tmp_path / "other.ckpt", 1.0, size=3)
    with pytest.raises(CheckpointError, match=r"other\.ckpt belongs to another network than"):
        make_soup([paths[0], other], out)
    with pytest.raises(CheckpointError, match=r"linear\.weight is not finite"):
        make_soup([paths[0], save(tmp_path / "diverged.ckpt", 1.0, spoiled=True)], out)
    with pytest.raises(ConfigError, match="two or more different checkpoints, got 1"):
        make_soup([paths[0], paths[0]], out)
    with pytest.raises(ConfigError, match="is one of the sources"):
        make_soup(paths, paths[1])
    with pytest.raises(ConfigError, match="one positive number for each"):
        make_soup(paths, out, weights=[1, 1])
    assert not out.exists()
