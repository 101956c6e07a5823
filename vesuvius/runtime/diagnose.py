"""What this machine offers and what is wrong with it; every fault names its cure.

Nothing here may fail: a check that cannot be made says so.
"""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

MIN_FREE_MEMORY_GIB = 4.0
MIN_FREE_DISK_GIB = 5.0
MIN_SHM_MIB = 512
COMPROMISED = {"lightning": ("2.6.2", "2.6.3")}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    Attributes:
        level: "ok", "warn" (works, but) or "fault" (something will fail).
        name: what was looked at.
        found: what was found.
        cure: what to do, empty if nothing.
    """

    level: str
    name: str
    found: str
    cure: str = ""


def run_checks(paths: Sequence[Path]) -> list[Finding]:
    """Return the findings of all checks; `paths` are the folders that must be writable."""
    checks: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
        ("python", check_python),
        ("packages", check_packages),
        ("torchvision", check_torchvision),
        ("torch", check_torch),
        ("gpu", check_gpu),
        ("processor", check_processor),
        ("memory", check_memory),
        ("disk", lambda: check_disk(paths)),
    ]
    findings: list[Finding] = []
    for name, check in checks:
        try:
            findings.extend(check())
        except Exception as error:
            cure = "reinstall with `make install`"
            findings.append(Finding("fault", name, f"check failed: {error!r}", cure))
    return findings


def check_python() -> Iterator[Finding]:
    """Which Python runs, inside a virtual environment or not."""
    found = f"{platform.python_version()} at {sys.executable}"
    if sys.prefix == sys.base_prefix:
        cure = "python3.11 -m venv .venv && . .venv/bin/activate (or make install)"
        yield Finding("warn", "Python", f"{found}, no virtual environment", cure)
    else:
        yield Finding("ok", "Python", found)
    yield Finding("ok", "system", platform.platform())


def check_packages() -> Iterator[Finding]:
    """Every requirement of the package is installed in a version that fits."""
    from packaging.requirements import Requirement

    missing, found = [], []
    for line in importlib.metadata.requires("vesuvius") or []:
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(f"{requirement.name} (absent)")
            continue
        found.append(f"{requirement.name} {version}")
        if version in COMPROMISED.get(requirement.name, ()):
            missing.append(f"{requirement.name} {version} (a compromised release)")
        elif not requirement.specifier.contains(version, prereleases=True):
            missing.append(f"{requirement.name} {version}, not {requirement.specifier}")
    if missing:
        yield Finding("fault", "packages", "; ".join(missing), "pip install -e . (or make install)")
    yield Finding("ok", "packages", ", ".join(found))
    extras = [name for name in ("wandb", "tensorboard", "pyvista", "cupy") if has_module(name)]
    yield Finding("ok", "optional", ", ".join(extras) or "none (wandb, tensorboard, pyvista, cupy)")


def check_torchvision() -> Iterator[Finding]:
    """Torchvision is absent: beside another build of torch it breaks `import lightning`."""
    if not has_module("torchvision"):
        yield Finding("ok", "torchvision", "absent, as it should be")
        return
    script = "import torchvision, lightning"
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    if result.returncode:
        last = result.stderr.strip().splitlines()[-1:] or ["unknown error"]
        cure = "pip uninstall torchvision (it does not match this torch; nothing here needs it)"
        yield Finding("fault", "torchvision", f"breaks imports: {last[0]}", cure)
    else:
        cure = "pip uninstall torchvision if an import fails; nothing here needs it"
        yield Finding("warn", "torchvision", "installed; imports work", cure)


def check_torch() -> Iterator[Finding]:
    """Torch imports; its build fits the machine's driver."""
    import torch

    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU build"
    yield Finding(
        "ok", "torch", f"{torch.__version__} ({build}), {torch.get_num_threads()} threads"
    )
    driver = nvidia_driver()
    if driver and not torch.version.cuda:
        cure = "pip install torch from the CUDA index (https://pytorch.org/get-started/locally)"
        yield Finding("warn", "CUDA", f"driver {driver}, but torch is a CPU build", cure)
    elif driver and not torch.cuda.is_available():
        cure = (
            "update the driver, or install the torch build of an older CUDA; in a container pass "
            "the GPU through (--gpus all)"
        )
        yield Finding("fault", "CUDA", f"driver {driver}, but torch sees no GPU", cure)
    elif not driver:
        yield Finding("ok", "CUDA", "no NVIDIA driver: CPU only (trainer=default)")
    else:
        yield Finding("ok", "CUDA", f"driver {driver}")


def check_gpu() -> Iterator[Finding]:
    """Free memory and bf16 of each GPU."""
    import torch

    if not torch.cuda.is_available():
        return
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        properties = torch.cuda.get_device_properties(index)
        precision = "bf16-mixed" if properties.major >= 8 else "16-mixed (no bf16 units)"
        found = (
            f"{properties.name}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free, "
            f"trainer.precision={precision}"
        )
        low = free < 4 * 2**30
        cure = "end other programs on it, or use a smaller batch_size or patch_zyx" if low else ""
        yield Finding("warn" if low else "ok", f"GPU {index}", found, cure)


def check_processor() -> Iterator[Finding]:
    """Usable cores, and whether bf16 is fast on this CPU."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    flags = cpu_flags()
    if "amx_bf16" in flags:
        speed = "AMX: bf16 with channels_last_3d is fast"
    elif "avx512_bf16" in flags:
        speed = "AVX-512 bf16: faster than fp32"
    else:
        speed = "no bf16 units: train and infer in fp32"
    yield Finding("ok", "processor", f"{cores} cores; {speed}")


def check_memory() -> Iterator[Finding]:
    """Free memory and shared memory, through which workers pass batches."""
    import psutil

    memory = psutil.virtual_memory()
    found = f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB free"
    low = memory.available < MIN_FREE_MEMORY_GIB * 2**30
    cure = (
        "end other programs, or use smaller data.cache_mb, num_workers, batch_size" if low else ""
    )
    yield Finding("warn" if low else "ok", "memory", found, cure)
    shm = Path("/dev/shm")
    if shm.is_dir():
        size_mib = shutil.disk_usage(shm).free / 2**20
        low = size_mib < MIN_SHM_MIB
        cure = "start the container with --shm-size=2g, or use num_workers=0" if low else ""
        yield Finding("warn" if low else "ok", "shared memory", f"{size_mib:.0f} MiB free", cure)


def check_disk(paths: Sequence[Path]) -> Iterator[Finding]:
    """Each folder exists, takes a file, and has room."""
    for path in paths:
        if not path.is_dir():
            yield Finding("fault", f"folder {path}", "does not exist", f"mkdir -p {path}")
            continue
        try:
            with tempfile.NamedTemporaryFile(dir=path) as file:
                file.write(b"x" * 4096)
                file.flush()
        except OSError as error:
            cure = "choose another folder, free space, or mend its permissions"
            yield Finding("fault", f"folder {path}", f"not writable ({error})", cure)
            continue
        free = shutil.disk_usage(path).free / 2**30
        low = free < MIN_FREE_DISK_GIB
        cure = "free some space; a prepared volume of 320^3 takes 34 MB" if low else ""
        found = f"writable, {free:.1f} GiB free"
        yield Finding("warn" if low else "ok", f"folder {path}", found, cure)


def has_module(name: str) -> bool:
    """Tell whether a package can be found, without importing it."""
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def nvidia_driver() -> str:
    """Return the version of the NVIDIA driver, "" if there is none."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    query = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    result = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
    lines = result.stdout.strip().splitlines()
    return lines[0] if result.returncode == 0 and lines else ""


def cpu_flags() -> set[str]:
    """Return the processor's feature flags, empty where the system does not tell."""
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return set()
    for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("flags"):
            return set(line.split(":", 1)[1].split())
    return set()
