"""The wheel works where there is no checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


def python(*arguments, cwd=None, env=None):
    """Run `python <arguments>`; a failure raises."""
    subprocess.run([sys.executable, *arguments], check=True, cwd=cwd, env=env, timeout=300)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", str(folder)]
    python("-m", "pip", "wheel", str(ROOT), *options)
    (path,) = folder.glob("*.whl")
    return path


def test_every_group_is_inside(wheel):
    inside = set(zipfile.ZipFile(wheel).namelist())
    there = {path.relative_to(ROOT).as_posix() for path in (ROOT / "conf").rglob("*.yaml")}
    own = {name for name in there if not name.startswith("conf/local/")}
    assert own <= {name.removeprefix("vesuvius/") for name in inside}
    viewer = {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "vesuvius/pictures/viewer").iterdir()
    }
    assert len(viewer) >= 6
    assert viewer <= inside  # the page of `vesuvius view`
    assert not any(name.startswith(("tests/", "benchmarks/", "conf/")) for name in inside)


TINY = """
    data.shape_zyx=[32,48,48] data.num_volumes=2 data.val_share=0.5 data.patch_zyx=[16,32,32]
    data.samples_per_volume=1 data.batch_size=1 data.folder=data model.n_filters=2
    callbacks=[checkpoint] logger=none trainer.max_epochs=1 optimized_metric=null task_name=wheel
"""


def test_trains_outside_the_checkout(wheel, tmp_path):
    target = tmp_path / "site"
    options = ["--quiet", "--no-deps", "--no-index", "--target", str(target)]
    python("-m", "pip", "install", *options, str(wheel))
    code = "import vesuvius, sys; sys.exit(not vesuvius.__file__.startswith(sys.argv[1]))"
    environment = {**os.environ, "PYTHONPATH": str(target)}
    python("-c", code, str(target), cwd=tmp_path, env=environment)
    python("-m", "vesuvius.train", *TINY.split(), cwd=tmp_path, env=environment)
    assert list(tmp_path.glob("logs/wheel/runs/*/checkpoints/last.ckpt"))
