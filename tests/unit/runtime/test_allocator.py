"""Freed memory is reused: counted in page faults of a process of its own."""

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import ctypes, resource, sys
from vesuvius.runtime.allocator import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def turn():
    block = libc.malloc(16 << 20)
    ctypes.memset(block, 1, 16 << 20)
    libc.free(block)
libc.free(libc.malloc(33 << 20))  # glibc raises its threshold after this by itself, not to 64 MiB
turn()
before = faults()
for _ in range(5):
    turn()
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's malloc")
def test_blocks_are_mapped_once():
    counts = {}
    for mode in ("default", "kept"):
        command = [sys.executable, "-c", SCRIPT, mode]
        counts[mode] = int(subprocess.run(command, check=True, capture_output=True).stdout)
    assert counts["kept"] < 100
    assert counts["default"] > 10 * counts["kept"]
