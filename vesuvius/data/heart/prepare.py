"""Turns a folder of label maps into prepared cases: parallel, resumable, each file atomic."""

import hashlib
import json
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from vesuvius.data.heart.format import FORMAT_VERSION, read_fingerprint, save_case
from vesuvius.data.heart.labels import case_id, read_label_map
from vesuvius.data.heart.sampler import SamplerOptions, sample_case
from vesuvius.data.process_pool import as_they_come
from vesuvius.errors import ConfigError, StorageError, VesuviusError


@dataclass(frozen=True, slots=True)
class HeartOutcome:
    """What became of one label map.

    Attributes:
        source: label map.
        target: its case.
        status: "done", "skipped" or "failed".
        error: message if failed.
        missing: names of classes the heart does not have; empty if skipped.
        fatal: no further file can succeed either (disk full).
    """

    source: Path
    target: Path
    status: str
    error: str = ""
    missing: tuple[str, ...] = ()
    fatal: bool = False


def prepare_hearts(
    sources: Sequence[Path],
    out: Path,
    options: SamplerOptions,
    *,
    file_workers: int = 1,
    threads: int = 1,
    overwrite: bool = False,
) -> Iterator[HeartOutcome]:
    """Prepare all label maps and yield each one's outcome as it comes.

    A bad file does not stop the others; a full disk does. Which processes did the work does not
    change a byte.

    Args:
        sources: label maps.
        out: folder of the cases, `<id>.npz`.
        options: what to draw.
        file_workers: processes, one file each; above 1 each works with one thread.
        threads: of the distance transforms within a file, if file_workers is 1.
        overwrite: redo what is finished.

    Raises:
        ConfigError: a number out of range.
    """
    if file_workers < 1 or threads < 1:
        raise ConfigError(
            f"file_workers is {file_workers}, threads {threads}; expected 1 or more "
            "(--file-workers, --workers)"
        )
    alone = min(file_workers, len(sources)) < 2
    run = partial(
        attempt, out=out, options=options, threads=threads if alone else 1, overwrite=overwrite
    )
    killed = partial(_failed, out=out, error=_KILLED)
    with closing(as_they_come(run, sources, num_jobs=file_workers, if_killed=killed)) as outcomes:
        for outcome in outcomes:
            yield outcome
            if outcome.fatal:
                return


_KILLED = (
    "a worker process ended early: out of memory, or started by a script without "
    'if __name__ == "__main__"; run again with --file-workers 1'
)


def attempt(
    source: Path, out: Path, options: SamplerOptions, threads: int, *, overwrite: bool
) -> HeartOutcome:
    """Prepare one label map unless it is finished; never raises on bad data."""
    target = out / f"{case_id(source)}.npz"
    try:
        fingerprint = heart_fingerprint(source, options)
        if not overwrite and target.is_file() and read_fingerprint(target) == fingerprint:
            return HeartOutcome(source, target, "skipped")
        label_map = read_label_map(source, num_classes=options.num_classes)
        case = sample_case(
            label_map,
            options,
            case_id=case_id(source),
            case_seed=zlib.crc32(case_id(source).encode()),
            threads=threads,
        )
        save_case(target, replace(case, fingerprint=fingerprint))
    except StorageError as error:
        return _failed(source, out, str(error), fatal=True)
    except VesuviusError as error:
        return _failed(source, out, str(error))
    except MemoryError:
        return _failed(source, out, f"{source}: out of memory; run with --file-workers 1")
    except OSError as error:
        return _failed(source, out, f"{source}: cannot be read ({error})")
    names = enumerate(options.class_names, start=1)
    missing = tuple(name for number, name in names if number not in case.present_classes)
    return HeartOutcome(source, target, "done", missing=missing)


def heart_fingerprint(source: Path, options: SamplerOptions) -> str:
    """Return a hash of the file's bytes and of all options that change the case."""
    with source.open("rb") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()
    facts = {k: v for k, v in asdict(options).items() if k != "block"}
    text = json.dumps([FORMAT_VERSION, content, case_id(source), facts])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _failed(source: Path, out: Path, error: str, *, fatal: bool = False) -> HeartOutcome:
    target = out / f"{case_id(source)}.npz"
    return HeartOutcome(source, target, "failed", error=error, fatal=fatal)
