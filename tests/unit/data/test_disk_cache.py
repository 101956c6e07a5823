"""Chunks on the local disk: whole or missing, bounded, shared by processes."""

import pickle
import subprocess
import sys
import time

import pytest

from vesuvius.data.disk_cache import ABSENT, DiskCache
from vesuvius.errors import ConfigError

OVERHEAD = 9
"""Bytes of an entry besides its content."""


def _files(folder):
    return [p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")]


def _bytes(folder):
    return sum(p.stat().st_size for p in _files(folder))


def test_what_was_put_comes_back_in_every_process(tmp_path):
    cache = DiskCache(tmp_path / "c", 10**6, tag="v1")
    assert cache.get("a") is None
    cache.put("a", b"chunk")
    cache.put("b", ABSENT)
    cache.put("empty", b"")
    again = pickle.loads(pickle.dumps(cache))
    assert again.get("a") == b"chunk"
    assert again.get("b") is ABSENT
    assert again.get("empty") == b""
    assert cache.tagged("v2").get("a") is None
    cache.put("a", b"newer")
    assert again.get("a") == b"newer"


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda b: b[:-1], id="cut"),
        pytest.param(lambda b: b[:20] + b"x" + b[21:], id="altered"),
        pytest.param(lambda b: b[:4] + b"\x00" + b[5:], id="absent"),
        pytest.param(lambda b: b"", id="empty"),
    ],
)
def test_a_damaged_entry_is_a_miss(tmp_path, damage):
    cache = DiskCache(tmp_path, 10**6)
    cache.put("a", b"0123456789abcdefghij")
    (path,) = _files(tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    assert cache.get("a") is None
    cache.put("a", b"whole again")
    assert cache.get("a") == b"whole again"


def test_an_entry_under_another_name_is_a_miss(tmp_path):
    cache = DiskCache(tmp_path, 10**6)
    cache.put("a", b"of a")
    (first,) = _files(tmp_path)
    cache.put("b", b"of b")
    (second,) = set(_files(tmp_path)) - {first}
    first.replace(second)
    assert cache.get("a") is None
    assert cache.get("b") is None


def test_the_least_recently_read_go_first(tmp_path):
    cache = DiskCache(tmp_path, 10 * (100 + OVERHEAD))
    for i in range(10):
        cache.put(str(i), bytes([i]) * 100)
        time.sleep(0.005)
    assert cache.get("0") is not None
    assert cache.get("2") is not None
    cache.put("10", bytes(100))  # full: dropped down to nine tenths, this one included
    left = [i for i in range(11) if cache.get(str(i)) is not None]
    assert left == [0, 2, *range(4, 11)]
    assert _bytes(tmp_path) == 9 * (100 + OVERHEAD)


def test_larger_than_the_bound_is_not_kept(tmp_path):
    cache = DiskCache(tmp_path, 100)
    cache.put("a", b"small")
    cache.put("b", bytes(200))
    assert cache.get("a") == b"small"
    assert cache.get("b") is None


def test_a_lost_count_and_what_a_killed_writer_left_are_counted_anew(tmp_path):
    cache = DiskCache(tmp_path, 1000)
    cache.put("a", bytes(300))
    (entry,) = _files(tmp_path)
    entry.with_name("dead.123.partial").write_bytes(bytes(600))
    (tmp_path / ".bytes").write_text("rubbish")
    time.sleep(0.005)
    cache.put("b", bytes(300))
    assert _bytes(tmp_path) <= 1000
    assert cache.get("b") is not None


WRITER = """
import os, sys
from pathlib import Path
from vesuvius.data.disk_cache import DiskCache
folder, seed = Path(sys.argv[1]), sys.argv[2]
cache = DiskCache(folder, 200_000)
print("ready", flush=True); sys.stdin.readline()
for i in range(80):
    name = f"{(i * 7 + int(seed)) % 60}"
    cache.put(name, name.encode() * 3000)
    for other in range(i % 9, 60, 9):
        found = cache.get(str(other))
        assert found is None or found == str(other).encode() * 3000
"""


def test_the_bound_holds_under_two_processes(tmp_path):
    folder = tmp_path / "c"
    command = [sys.executable, "-c", WRITER, str(folder)]
    writers = [
        subprocess.Popen([*command, seed], stdin=-1, stdout=-1, text=True) for seed in ("1", "31")
    ]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    largest = 0
    while any(writer.poll() is None for writer in writers):
        try:
            largest = max(largest, _bytes(folder))
        except FileNotFoundError:  # dropped between listing and asking
            continue
    for writer in writers:
        writer.communicate()
    assert [writer.returncode for writer in writers] == [0, 0]
    assert 100_000 < largest <= 200_000


def test_a_disk_that_cannot_be_written_is_said_once(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    cache = DiskCache(tmp_path / "file" / "c", 1000)
    cache.put("a", b"x")
    cache.put("b", b"x")
    assert cache.get("a") is None
    assert caplog.text.count("the chunk cache cannot be written") == 1


def test_no_bytes(tmp_path):
    with pytest.raises(ConfigError, match=r"a disk cache of 0 bytes; .*\(data\.disk_cache_gb"):
        DiskCache(tmp_path, 0)
