"""A chain as plain data: names, dotted paths and arguments; what the cache keys and YAML hold."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vesuvius.errors import ConfigError
from vesuvius.postprocess.chain import check_masks
from vesuvius.postprocess.steps.state import Step

TARGET = "_target_"
CHAIN_TARGET = "vesuvius.postprocess.chain.ChainPostprocess"


@dataclass(frozen=True, slots=True)
class StepSpec:
    """One step: its name and, as JSON text, `_target_` and arguments."""

    name: str
    text: str

    @classmethod
    def of(cls, name: str, node: Mapping[str, Any]) -> "StepSpec":
        """Return the spec of a mapping with `_target_`.

        Raises:
            ConfigError: no `_target_`, or values that are not plain.
        """
        if TARGET not in node:
            raise ConfigError(f"step {name!r} has no {TARGET}; got {dict(node)}")
        try:
            return cls(name, json.dumps(node, sort_keys=True))
        except TypeError as error:
            raise ConfigError(f"step {name!r} holds a value that is not plain: {error}") from error

    @property
    def node(self) -> dict[str, Any]:
        """The mapping with `_target_` and arguments."""
        node: dict[str, Any] = json.loads(self.text)
        return node


Chain = tuple[StepSpec, ...]
Builder = Callable[[Mapping[str, Any]], Step]
"""Makes a step of a mapping with `_target_`; a function of a module."""


def chain_of(nodes: Mapping[str, Mapping[str, Any]]) -> Chain:
    """Return the chain of name -> mapping with `_target_`."""
    return tuple(StepSpec.of(name, node) for name, node in nodes.items())


def chain_text(chain: Chain) -> str:
    """Return the chain as JSON: equal chains have equal text."""
    return json.dumps([[step.name, step.node] for step in chain])


def parsed_chain(text: str) -> Chain:
    """Return the chain of `chain_text`."""
    return tuple(StepSpec.of(name, node) for name, node in json.loads(text))


def without(chain: Chain, name: str) -> Chain:
    """Return the chain without the step of that name."""
    return tuple(step for step in chain if step.name != name)


def removable(chain: Chain, build: Builder) -> list[str]:
    """Return the names of steps without which the chain still runs."""
    names = []
    for step in chain:
        try:
            check_built(without(chain, step.name), build)
        except ConfigError:
            continue
        names.append(step.name)
    return names


def check_built(chain: Chain, build: Builder) -> None:
    """Refuse a chain that cannot run, before any volume is read.

    Raises:
        ConfigError: empty, a bad argument, or a mask read before it is made.
    """
    steps = [(spec.name, build(spec.node)) for spec in chain]
    check_masks((name, step.reads_mask, step.makes_mask) for name, step in steps)


def chain_config(chain: Chain) -> dict[str, Any]:
    """Return the configuration of `ChainPostprocess`; repeated names get a number."""
    names: Sequence[str] = [step.name for step in chain]
    if len(set(names)) != len(names):
        raise ConfigError(f"step names must differ, got {list(names)}")
    step = {one.name: one.node for one in chain}
    return {TARGET: CHAIN_TARGET, "order": None, "threads": None, "step": step}
