"""Score of a chain on a case; steps that an earlier chain shares are not run again."""

import hashlib
import time
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

import vesuvius.postprocess
from vesuvius.errors import StorageError
from vesuvius.metrics import competition_score
from vesuvius.postprocess.chain import run_step
from vesuvius.postprocess.inputs import check_normals, check_probability
from vesuvius.postprocess.steps.state import ChainState
from vesuvius.tuning.cache import Arrays, StepCache, key_of
from vesuvius.tuning.cases import Case, CaseData, Loader, fingerprint, loaded
from vesuvius.tuning.chains import Builder, Chain, chain_text

PARTS = ("score", "topo", "surface_dice", "voi_score")
_WORTH_STORING_S = 0.2
"""A step that takes less is run again rather than read."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One chain on one case.

    Attributes:
        case: its name.
        score: official score in [0, 1].
        topo: TopoScore.
        surface_dice: surface Dice at 2 voxels.
        voi_score: VOI score.
        seconds: steps and score as far as they were run now.
        steps_run: steps run now; the others came from the cache.
    """

    case: str
    score: float
    topo: float
    surface_dice: float
    voi_score: float
    seconds: float
    steps_run: int


@dataclass(frozen=True, slots=True)
class Evaluator:
    """Everything a process needs to score a chain.

    Attributes:
        load: reads a case; a function of a module.
        build: makes a step; a function of a module.
        cache: states and scores on disk.
        threads: CPU threads of a step and of the score.
    """

    load: Loader
    build: Builder
    cache: StepCache
    threads: int = 1

    def print_of(self, case: Case) -> str:
        """Return the hash of a case's content; kept by path, size and time of its files."""
        key = key_of("print", case.prediction, case.label, *map(_stamp, _files(case)))
        stored = self.cache.read_json(key)
        if stored is None:
            stored = {"print": fingerprint(self.load, case)}
            self.cache.write_json(key, stored)
        return str(stored["print"])

    def outcome(self, case: Case, chain: Chain) -> Outcome:
        """Return the score of one chain on one case.

        Raises:
            ConfigError: a step refuses its arguments or its place.
        """
        start = time.perf_counter()
        content = self.print_of(case)
        key = key_of("score", content, code_hash(), chain_text(chain))
        stored = self.cache.read_json(key)
        run = 0
        if stored is None or not set(PARTS) <= set(stored):
            state, run = self.state_after(case, chain, content)
            assert state.mask is not None
            label = loaded(self.load, case).label
            found = competition_score(state.mask, label, threads=self.threads)
            stored = {part: getattr(found, part) for part in PARTS}
            self.cache.write_json(key, stored)
        parts = {part: float(stored[part]) for part in PARTS}
        return Outcome(case.name, **parts, seconds=time.perf_counter() - start, steps_run=run)

    def state_after(self, case: Case, chain: Chain, content: str) -> tuple[ChainState, int]:
        """Return the state after the chain and the number of steps run now."""
        data = loaded(self.load, case)
        state = first_state(data, self.threads)
        keys = [
            key_of("state", content, code_hash(), chain_text(chain[: n + 1]))
            for n in range(len(chain))
        ]
        done = 0
        for place in reversed(range(len(chain))):
            stored = self.cache.read_arrays(keys[place])
            if stored is not None:
                state, done = unpacked(stored, state), place + 1
                break
        for place in range(done, len(chain)):
            start = time.perf_counter()
            before = state
            state = run_step(chain[place].name, self.build(chain[place].node), before)
            if time.perf_counter() - start > _WORTH_STORING_S:
                self.cache.write_arrays(keys[place], packed(state, data))
        return state, len(chain) - done


def first_state(data: CaseData, threads: int) -> ChainState:
    """Return the state before the first step, checked as `ChainPostprocess` checks it."""
    probability = check_probability(data.probability)
    normals = None if data.normals is None else check_normals(data.normals, probability.shape)
    return ChainState(probability, normals, threads=threads)


def packed(state: ChainState, data: CaseData) -> Arrays:
    """Return what of a state differs from the case, masks as bits."""
    arrays: Arrays = {}
    if state.probability is not data.probability:
        arrays["probability"] = state.probability
    if state.mask is not None:
        arrays["mask"] = np.packbits(state.mask)
    if state.labels is not None:
        top = int(state.labels.max(initial=0))
        arrays["labels"] = state.labels.astype(np.uint16 if top < 2**16 else np.int32)
    return arrays


def unpacked(arrays: Arrays, first: ChainState) -> ChainState:
    """Return the state that `packed` stored; `first` is the case's state before any step."""
    shape, size = first.probability.shape, first.probability.size
    mask = labels = None
    if "mask" in arrays:
        mask = np.unpackbits(arrays["mask"], count=size).reshape(shape).astype(np.bool_)
    if "labels" in arrays:
        labels = arrays["labels"].astype(np.int32)
    probability = arrays.get("probability", first.probability)
    return replace(first, probability=probability, mask=mask, labels=labels)


@cache
def code_hash() -> str:
    """Return a hash of the post-processing's source: another version shares no cached state."""
    root = Path(vesuvius.postprocess.__file__).parent
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _files(case: Case) -> list[Path]:
    """Return the files of a case: of Zarr folders all that lie in them."""
    files: list[Path] = []
    for place in (Path(case.prediction), Path(case.label)):
        files += sorted(p for p in place.rglob("*") if p.is_file()) if place.is_dir() else [place]
    return files


def _stamp(path: Path) -> str:
    try:
        facts = path.stat()
    except OSError as error:
        raise StorageError(f"cannot read '{path}': {error.strerror or error}") from error
    return f"{path}|{facts.st_size}|{facts.st_mtime_ns}"
