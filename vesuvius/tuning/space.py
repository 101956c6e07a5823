"""What may be tried: chains whose arguments are values or ranges."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import yaml

from vesuvius.errors import ConfigError
from vesuvius.tuning.chains import TARGET, Chain, StepSpec

OPTIONAL = "_optional_"
SPACES = Path(__file__).with_name("spaces")
"""Search spaces that come with the package."""
_NUMBERS = {"min", "max", "step", "log", "initial"}
_CHOICES = {"choices", "initial"}


class Trial(Protocol):
    """The part of an Optuna trial that a space needs."""

    def suggest_categorical(self, name: str, choices: list[Any]) -> Any:
        """Return one of the choices."""
        ...

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int:
        """Return a whole number."""
        ...

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None, log: bool
    ) -> float:
        """Return a number."""
        ...


@dataclass(frozen=True, slots=True)
class Range:
    """One argument that is searched: numbers from `low` to `high`, or `choices`."""

    low: float = 0
    high: float = 0
    step: float | None = None
    log: bool = False
    choices: tuple[Any, ...] = ()
    initial: Any = None

    def suggest(self, trial: Trial, name: str) -> Any:
        """Return a value for a trial."""
        if self.choices:  # lists are no Optuna category: choose by place
            place = trial.suggest_categorical(name, list(range(len(self.choices))))
            return self.choices[place]
        if isinstance(self.low, int) and isinstance(self.high, int):
            step = 1 if self.step is None else int(self.step)
            return trial.suggest_int(name, self.low, self.high, step=step, log=self.log)
        return trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)

    @property
    def start(self) -> Any:
        """What the first trial of the chain uses, as Optuna stores it."""
        if self.choices:
            return self.choices.index(self.initial) if self.initial in self.choices else 0
        if self.initial is not None:
            return self.initial
        middle = (self.low * self.high) ** 0.5 if self.log else (self.low + self.high) / 2
        if self.step is not None:
            middle = self.low + round((middle - self.low) / self.step) * self.step
        return round(middle) if isinstance(self.low, int) else middle


@dataclass(frozen=True, slots=True)
class SpaceStep:
    """One step of a chain to search: its node holds values, `Range`s and mappings of them."""

    name: str
    node: Mapping[str, Any]
    optional: bool


@dataclass(frozen=True, slots=True)
class SearchSpace:
    """Chains by name; a trial takes one chain, its optional steps or not, a value of each range."""

    chains: Mapping[str, tuple[SpaceStep, ...]]

    def suggest(self, trial: Trial) -> Chain:
        """Return the chain of a trial."""
        names = list(self.chains)
        name = names[0] if len(names) == 1 else trial.suggest_categorical("chain", names)
        chain = []
        for step in self.chains[name]:
            key = f"{name}/{step.name}"
            if step.optional and not trial.suggest_categorical(key, [True, False]):
                continue
            chain.append(StepSpec.of(step.name, _suggested(step.node, trial, key)))
        return tuple(chain)

    def first_trials(self) -> list[dict[str, Any]]:
        """Return the parameters to try first: every chain with its initial values, all steps on."""
        first = []
        for name, steps in self.chains.items():
            values: dict[str, Any] = {} if len(self.chains) == 1 else {"chain": name}
            for step in steps:
                key = f"{name}/{step.name}"
                if step.optional:
                    values[key] = True
                values |= _initial(step.node, key)
            first.append(values)
        return first


def _suggested(node: Mapping[str, Any], trial: Trial, key: str) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in node.items():
        if isinstance(value, Range):
            out[name] = value.suggest(trial, f"{key}/{name}")
        elif isinstance(value, Mapping):
            out[name] = _suggested(value, trial, f"{key}/{name}")
        else:
            out[name] = value
    return out


def _initial(node: Mapping[str, Any], key: str) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in node.items():
        if isinstance(value, Range):
            out[f"{key}/{name}"] = value.start
        elif isinstance(value, Mapping):
            out |= _initial(value, f"{key}/{name}")
    return out


def read_space(source: str) -> SearchSpace:
    """Return the space of a YAML file, or of one that comes with the package, by name.

    The file holds `chains: {name: {step: {_target_: ..., argument: value or range}}}`, or is one
    chain as `ChainPostprocess` is configured. A range is `{min: , max: }` with `step`, `log`,
    `initial`, or `{choices: [...]}`; a step with `_optional_: true` may be left out.

    Raises:
        ConfigError: no such file, not YAML, or an entry that is no chain, step or range.
    """
    path = Path(source)
    if not path.is_file():
        path = SPACES / f"{source}.yaml"
    if not path.is_file():
        known = sorted(file.stem for file in SPACES.glob("*.yaml"))
        raise ConfigError(f"search space {source!r} is neither a file nor one of {known} (--space)")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {error} (--space)") from error
    try:
        return parse_space(content, name=path.stem)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error} (--space)") from error


def parse_space(content: Any, *, name: str = "chain") -> SearchSpace:
    """Return the space of what `read_space` reads from a file; `name` is that of a single chain."""
    if isinstance(content, Mapping) and isinstance(content.get("step"), Mapping):
        content = {"chains": {name: content["step"]}}
    if not isinstance(content, Mapping) or not isinstance(content.get("chains"), Mapping):
        raise ConfigError("expected a mapping with `chains` (or `step`, for one chain)")
    if not content["chains"]:
        raise ConfigError("`chains` is empty")
    return SearchSpace({key: _steps(key, chain) for key, chain in content["chains"].items()})


def merged(spaces: list[SearchSpace]) -> SearchSpace:
    """Return one space with the chains of all; of equal names the last counts."""
    return SearchSpace({name: steps for space in spaces for name, steps in space.chains.items()})


def _steps(name: str, chain: Any) -> tuple[SpaceStep, ...]:
    if not isinstance(chain, Mapping) or not chain:
        raise ConfigError(f"chain {name!r} is no mapping of steps")
    steps = []
    for step, node in chain.items():
        if not isinstance(node, Mapping) or TARGET not in node:
            raise ConfigError(f"step {name}/{step} has no {TARGET}")
        optional = node.get(OPTIONAL, False)
        if not isinstance(optional, bool):
            raise ConfigError(f"{name}/{step}: {OPTIONAL} must be true or false, got {optional!r}")
        kept = {key: value for key, value in node.items() if key != OPTIONAL}
        steps.append(SpaceStep(str(step), _node(f"{name}/{step}", kept), optional))
    return tuple(steps)


def _node(key: str, node: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in node.items():
        at = f"{key}/{name}"
        if isinstance(value, Mapping) and TARGET in value:
            out[name] = _node(at, value)
        elif isinstance(value, Mapping):
            out[name] = _range(at, value)
        else:
            out[name] = value
    return out


def _range(key: str, value: Mapping[str, Any]) -> Range:
    """Return the range of a mapping, checked."""
    if "choices" in value:
        choices = value["choices"]
        if set(value) - _CHOICES or not isinstance(choices, list) or not choices:
            raise ConfigError(f"{key}: expected choices: [...] and maybe initial, got {value}")
        return Range(choices=tuple(choices), initial=value.get("initial"))
    low, high = value.get("min"), value.get("max")
    numbers = _is_number(low) and _is_number(high)
    if set(value) - _NUMBERS or low is None or high is None or not numbers or low > high:
        raise ConfigError(
            f"{key}: expected a range {{min: , max: }} with step, log or initial, got {dict(value)}"
        )
    log, step = bool(value.get("log", False)), value.get("step")
    if log and (low <= 0 or step is not None):
        raise ConfigError(f"{key}: log needs min above 0 and no step, got {dict(value)}")
    return Range(low=low, high=high, step=step, log=log, initial=value.get("initial"))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
