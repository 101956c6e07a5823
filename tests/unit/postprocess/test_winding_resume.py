"""A solve in blocks that is killed, disturbed or shared goes on and ends with the same bytes."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
import zarr

from benchmarks.winding_cases import DEFAULT, make_case
from vesuvius.errors import ConfigError, StorageError, VolumeFormatError
from vesuvius.postprocess.winding import MaskSettings
from vesuvius.postprocess.winding.blocks import solve_blocks
from vesuvius.postprocess.winding.workers import make_workers

HOW = {"block": 64, "overlap": 32, "shard": 64, "device": "cpu"}
SHAPE = (32, 40, 160)
"""Four blocks of 32 x 40 x 64 in a row, three shards, two levels below of two shards and one."""


def files(root):
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Prediction and result of a solve that nothing happened to."""
    root = tmp_path_factory.mktemp("undisturbed")
    case = make_case(DEFAULT, SHAPE, seed=1)
    stored = np.round(case.probability * 255).astype(np.uint8)
    zarr.open_group(root / "p.zarr", mode="w").create_array("probability", data=stored)
    report = solve_blocks(root / "p.zarr", root / "w.zarr", **HOW)
    assert (report.blocks, report.before, report.fallback) == (4, 0, [])
    assert len(report.links) == 3
    return root / "p.zarr", root / "w.zarr"


def test_interrupted_it_goes_on_where_it_was(undisturbed, tmp_path):
    source, expected = undisturbed
    seen = []

    def interrupt(state):
        seen.append(str(state))
        if len(seen) in (2, 6):
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            solve_blocks(source, tmp_path / "w.zarr", **HOW, progress=interrupt)
        assert not (tmp_path / "w.zarr").exists()
    assert seen[0].startswith("solve 1/4, ")
    assert seen[0].endswith(" s left")
    report = solve_blocks(source, tmp_path / "w.zarr", **HOW)
    assert (report.blocks, report.before) == (4, 4)
    assert files(tmp_path / "w.zarr") == files(expected)
    assert [path.name for path in tmp_path.iterdir()] == ["w.zarr"]


def test_other_settings_and_other_processes_are_refused(undisturbed, tmp_path):
    source, _ = undisturbed
    out = tmp_path / "w.zarr"

    def interrupt(state):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        solve_blocks(source, out, **HOW, progress=interrupt)
    with pytest.raises(ConfigError, match=r"begun with other settings \(overlap\); go on with"):
        solve_blocks(source, out, **{**HOW, "overlap": 24})
    with pytest.raises(ConfigError, match=r"other settings \(mask\.threshold, mask\.dust\)"):
        solve_blocks(source, out, **HOW, mask_settings=MaskSettings(threshold=0.4, dust=9))
    with (tmp_path / "w.zarr.blocks" / "solve.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(StorageError, match="is being written by another process"):
            solve_blocks(source, out, **HOW)


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_of_a_prediction_with_nan_nothing_is_kept(undisturbed, tmp_path, workers):
    if workers > 1:
        pytest.importorskip("distributed")
    source, expected = undisturbed
    stored = zarr.open_group(source, mode="r")["probability"][:]
    values = stored.astype(np.float32) / np.float32(255)
    values[3, 5, 150:152] = np.nan  # in the last block
    written = zarr.open_group(tmp_path / "p.zarr", mode="w")
    array = written.create_array("probability", data=values)
    with pytest.raises(VolumeFormatError) as caught:
        solve_blocks(tmp_path / "p.zarr", tmp_path / "w.zarr", **HOW, workers=workers)
    text = str(caught.value)
    place = f"{tmp_path / 'p.zarr'}, voxels [0:32, 0:40, 96:160]"
    assert text.startswith(f"{place}: probability holds 2 NaN or infinite voxels")
    assert "Nothing solved of this prediction is kept: write it anew" in text
    assert [path.name for path in tmp_path.iterdir()] == ["p.zarr"]
    array[:] = stored.astype(np.float32) / np.float32(255)
    assert solve_blocks(tmp_path / "p.zarr", tmp_path / "w.zarr", **HOW).before == 0
    found, known = (zarr.open_group(p, mode="r") for p in (tmp_path / "w.zarr", expected))
    for name in ("field", "labels/sheets/0"):
        np.testing.assert_array_equal(found[name][:], known[name][:])


_CHILD = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_winding_resume as t
from vesuvius.postprocess.winding import block_tasks
from vesuvius.postprocess.winding.blocks import solve_blocks
from vesuvius.storage import block_store
import zarr.storage._local as local

source, out, point = sys.argv[1:]
kind, number = point.split(":")
def die(): os.kill(os.getpid(), signal.SIGKILL)
count = 0
def here(name):
    global count
    if name == kind:
        count += 1
        if count == int(number): die()

write_json, replace_folder = block_tasks.write_json, block_store.replace_folder
replace, rename = local.Path.replace, Path.rename
def recorded(path, content):
    here("before-" + path.parent.name)
    write_json(path, content)
    here("after-" + path.parent.name)
def replaced(source, target):
    if "/c/" in str(target): here("shard" if ".unfinished" in str(target) else "array")
    return replace(source, target)
def renamed(source, target):
    if Path(target).parent.name == "solved": here("folder")
    return rename(source, target)
def placed(source, target):
    here("before-end")
    replace_folder(source, target)
    here("after-end")
block_tasks.write_json = block_store.write_json = recorded
block_store.replace_folder = placed
local.Path.replace, Path.rename = replaced, renamed
solve_blocks(Path(source), Path(out), **t.HOW)
"""

KILLS = ["array:2", "folder:1", "before-solved:1", "after-solved:1", "after-solved:2",
         "before-links:2", "after-links:1", "shard:2", "shard:5", "before-0:1", "after-0:1",
         "shard:2", "before-end:1", "after-end:1"]  # fmt: skip
"""Counted from each restart: arrays, folder and record of a block, its links, shards, the end."""


@pytest.mark.slow
def test_killed_at_every_kind_of_moment_it_ends_with_the_same_bytes(undisturbed, tmp_path):
    """One process forks a child a kill, so that imports happen once."""
    source, expected = undisturbed
    script = (
        "import os, sys, traceback\n"
        f"sys.path[:0] = {[str(Path(__file__).parent), str(Path.cwd())]!r}\n"
        "import test_winding_resume\n"  # before the fork: imports only, no thread is started
        f"code = {_CHILD.format(tests=str(Path(__file__).parent))!r}\n"
        "source, out, *points = sys.argv[1:]\n"
        "for point in points:\n"
        "    pid = os.fork()\n"
        "    if not pid:\n"
        "        try:\n"
        "            sys.argv = ['child', source, out, point]\n"
        "            exec(code, {})\n"
        "            os._exit(0)\n"
        "        except BaseException:\n"
        "            traceback.print_exc(); os._exit(1)\n"
        "    print(point, os.waitpid(pid, 0)[1], flush=True)\n"
    )
    out = tmp_path / "w.zarr"
    done = subprocess.run(
        [sys.executable, "-c", script, str(source), str(out), *KILLS],
        capture_output=True, text=True, timeout=110, check=True,
    )  # fmt: skip
    assert done.stdout.split("\n")[:-1] == [f"{point} 9" for point in KILLS], done.stderr
    assert files(out) == files(expected)
    assert (tmp_path / "w.zarr.blocks").exists()  # killed before it could tidy up
    with pytest.raises(StorageError, match="exists already"):
        solve_blocks(source, out, **HOW)
    assert [path.name for path in tmp_path.iterdir()] == ["w.zarr"]


def _worker_processes() -> list[psutil.Process]:
    """Return the living processes of a LocalCluster of this process."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # gone, or about to
            if child.status() != psutil.STATUS_ZOMBIE and "spawn_main" in str(child.cmdline()):
                found.append(child)
    return found


@pytest.mark.slow
def test_workers_killed_in_the_middle_lose_nothing(undisturbed, tmp_path, caplog):
    pytest.importorskip("distributed")
    caplog.set_level("INFO")
    source, expected = undisturbed
    killed = []

    def kill(state):
        if (state.stage, state.done) == ("solve", 1):  # the others are at work right now
            for worker in _worker_processes():
                os.kill(worker.pid, signal.SIGKILL)
                killed.append(worker.pid)

    report = solve_blocks(source, tmp_path / "w.zarr", **HOW, workers=2, progress=kill)
    assert len(killed) == 2
    assert report.blocks == 4
    assert "Dask dashboard: http://127.0.0.1:" in caplog.text
    assert files(tmp_path / "w.zarr") == files(expected)
    assert not _worker_processes()


@pytest.mark.slow
def test_a_cluster_by_its_address_of_which_one_worker_dies(undisturbed, tmp_path):
    """As on real machines: processes of their own, and nobody starts the dead one again."""
    pytest.importorskip("distributed")
    source, expected = undisturbed
    facts = tmp_path / "scheduler.json"
    where = ["--scheduler-file", str(facts)]
    with ExitStack() as started:

        def dask(*words):
            process = subprocess.Popen(
                [sys.executable, "-m", "dask", *words, *where],
                cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            started.callback(process.wait)
            started.callback(process.kill)
            return process

        dask("scheduler", "--port", "0", "--host", "127.0.0.1", "--no-dashboard")
        workers = [dask("worker", "--nthreads", "1", "--no-nanny") for _ in range(2)]

        def kill(state):
            if (state.stage, state.done) == ("solve", 1):
                workers[0].kill()

        while not facts.exists():
            time.sleep(0.1)
        address = json.loads(facts.read_text())["address"]
        solve_blocks(source, tmp_path / "w.zarr", **HOW, dask=address, progress=kill)
        assert [worker.poll() for worker in workers] == [-signal.SIGKILL, None]
    assert files(tmp_path / "w.zarr") == files(expected)


@pytest.mark.slow
def test_interrupted_on_dask_it_ends_at_once_and_goes_on(undisturbed, tmp_path):
    pytest.importorskip("distributed")
    source, expected = undisturbed

    def interrupt(state):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        solve_blocks(source, tmp_path / "w.zarr", **HOW, workers=2, progress=interrupt)
    assert not _worker_processes()
    assert solve_blocks(source, tmp_path / "w.zarr", **HOW).before >= 1
    assert files(tmp_path / "w.zarr") == files(expected)


def test_what_workers_refuse(monkeypatch):
    for number, address in ((0, None), (2, "tcp://host:1")):
        with (
            pytest.raises(ConfigError, match="expected at least 1 worker of this machine, or the"),
            make_workers(number, address),
        ):
            pass
    monkeypatch.setitem(sys.modules, "distributed", None)  # as if not installed
    with (
        pytest.raises(ConfigError, match=r"pip install 'vesuvius\[dask\]', or solve in this proc"),
        make_workers(2),
    ):
        pass


def test_a_scheduler_that_does_not_answer(monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("vesuvius.postprocess.winding.workers.CONNECT_S", 0.3)
    with (
        pytest.raises(ConfigError, match=r"dask=tcp://127\.0\.0\.1:9: no scheduler answers"),
        make_workers(1, "tcp://127.0.0.1:9"),
    ):
        pass
