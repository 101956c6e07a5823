"""The command line that an output names."""

from hydra.core.hydra_config import HydraConfig

from vesuvius.runtime.compose_config import compose_config
from vesuvius.runtime.infer_facts import command


def test_outside_of_a_hydra_job_the_command_names_what_decides_the_result(monkeypatch):
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)  # other tests leave their job's
    cfg = compose_config(
        "infer", ["run_dir=[a,b]", "volume=v.zarr", "region_zyx=[[0,8],[0,8],[2,9]]"]
    )
    words = command(cfg).split()
    assert words[:2] == ["python", "infer.py"]
    assert {"run_dir=[a,b]", "volume=v.zarr", "region_zyx=[[0,8],[0,8],[2,9]]"} <= {
        word.strip("'") for word in words
    }
    assert not any(word.startswith("out_dir") for word in words)
