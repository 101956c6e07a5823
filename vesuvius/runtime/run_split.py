"""Keeps in a run's folder which volumes it trained on, wherever its split came from."""

import json
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from vesuvius.data.crops_module import CropsDataModule
from vesuvius.errors import ConfigError
from vesuvius.inference.store import write_json

FILE = "split.json"


@rank_zero_only
def keep_split(datamodule: Any, folder: Path, *, resumed: bool) -> None:
    """Write `split.json` to the run's folder, unless the data module writes it there itself.

    Out-of-fold prediction trusts this file, not the one given in training, which may change.

    Args:
        datamodule: others than those of surface crops are left alone.
        folder: of the run.
        resumed: the run goes on from a checkpoint of this folder.

    Raises:
        ConfigError: a resumed run would train on what it validated on before.
    """
    target = folder / FILE
    if not isinstance(datamodule, CropsDataModule):
        return
    given = datamodule.split_file
    if given is not None and given.resolve() == target.resolve():
        return
    datamodule.prepare_data()
    datamodule.setup("fit")
    split = {**datamodule.split, "fold": datamodule.fold, "split_file": str(given or "")}
    if resumed and target.is_file():
        before = json.loads(target.read_text(encoding="utf-8"))
        if before.get("val") != split["val"]:
            raise ConfigError(
                f"{folder} was trained with another split (fold {before.get('fold')}, now "
                f"{datamodule.fold}): resuming would train on volumes it validated on. Give the "
                "split_file and fold of before, or a new hydra.run.dir."
            )
    write_json(target, split)
