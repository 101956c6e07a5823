"""Several processes share a volume without talking; what info prints makes the same bytes again."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import zarr

from vesuvius.cli.main import main

ROOT = Path(__file__).parents[2]
HOW = ("blocks=true", "block_edge=64", "block_memory_gb=0.001", "roi_zyx=[32,32,32]",
       "overlap=0.25",
       "postprocess=threshold", "precision=fp32", "pictures=false", "device=cpu")  # fmt: skip

pytestmark = [pytest.mark.slow, pytest.mark.ddp]


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture
def trained(shared, run_train):
    """One run, shared by the tests of this file."""
    folder = shared / "run"
    if not (folder / "result.json").is_file():
        run_train(folder, "trainer.max_epochs=1")
    return folder


@pytest.fixture
def volume(shared, prepared):
    """A volume of eight blocks, from the one of one block."""
    path = shared / "v.zarr"
    if not path.exists():
        (source,) = (prepared / "test").glob("*.zarr")
        image = zarr.open_group(source, mode="r")["image"][:]
        large = image.repeat(2, 0).repeat(2, 1).repeat(2, 2)[:72, :72, :72]
        zarr.create_array(path, data=large, chunks=(32,) * 3)
    return path


def command(trained, volume, out, *more):
    words = ["infer.py", f"run_dir={trained}", f"volume={volume}", f"out_dir={out}", *HOW, *more]
    return [*words, f"hydra.run.dir={out}_hydra"]


def finish(*processes):
    try:
        for process in processes:
            _, errors = process.communicate(timeout=280)
            assert process.returncode == 0, errors[-3000:]
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def start(*words):
    # Without the commit: somebody may commit between two of these runs.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GIT_DIR": os.devnull}
    return subprocess.Popen(
        words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def files(root):
    """Bytes of the store and of the masks; reports hold times."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.name.startswith(("report", "scores"))
    }


@pytest.fixture
def alone(shared, trained, volume):
    """Folder of what one process writes."""
    out = shared / "alone"
    if not out.exists():
        finish(start(sys.executable, *command(trained, volume, out)))
        report = json.loads((out / "report.json").read_text())["volumes"]["v"]
        assert (report["blocks"], report["blocks_written"]) == (8, 8)
    return out


def test_two_processes_at_once_write_what_one_writes(shared, trained, volume, alone):
    out = shared / "two"
    finish(
        *(
            start(sys.executable, *command(trained, volume, out, f"rank={rank}", "world_size=2"))
            for rank in (0, 1)
        )
    )
    assert files(out) == files(alone)
    written = [
        json.loads((out / f"report_rank{rank}.json").read_text())["volumes"]["v"] for rank in (0, 1)
    ]
    assert [report["blocks_written"] for report in written] == [4, 4]
    assert sorted(report["finished"] for report in written) == [False, True]


def test_two_processes_of_torchrun_write_what_one_writes(shared, trained, volume, alone):
    out = shared / "torchrun"
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    finish(start(sys.executable, *launcher, *command(trained, volume, out)))
    assert files(out) == files(alone)
    assert sorted(path.name for path in out.glob("report*")) == [
        "report_rank0.json", "report_rank1.json",
    ]  # fmt: skip


def test_the_command_that_info_prints_makes_the_same_bytes(shared, alone, capsys):
    before = files(alone)
    for output in ("v.zarr", "v_mask.tif", "v_mask.json"):
        assert main(["info", str(alone / output)]) == 0
    words = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert words[:2] == ["python", "infer.py"]
    again = shared / "again"
    finish(start(sys.executable, *words[1:], f"out_dir={again}"))
    assert files(again) == before
    shutil.rmtree(again)
