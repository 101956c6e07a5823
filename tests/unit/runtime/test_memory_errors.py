"""Out of memory names the sizes and what to lower; other errors pass."""

import pytest
import torch
from omegaconf import OmegaConf

from vesuvius.errors import OutOfMemoryError
from vesuvius.runtime.memory_errors import inference_memory, training_memory

CFG = OmegaConf.create(
    {
        "data": {"patch_zyx": [128, 128, 128], "batch_size": 8},
        "trainer": {"precision": "32-true", "accumulate_grad_batches": 1},
    }
)
CPU = "[enforce fail at alloc_cpu.cpp:119] err == 0. DefaultCPUAllocator: can't allocate memory"


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nDetails"),
        RuntimeError(CPU),
        MemoryError(),
    ],
    ids=["cuda", "cpu", "numpy"],
)
def test_training_names_crop_batch_and_the_keys(error):
    with pytest.raises(OutOfMemoryError) as caught, training_memory(CFG):
        raise error
    text = str(caught.value)
    assert "data.patch_zyx=[128, 128, 128], data.batch_size=8, trainer.precision=32-true" in text
    assert "data.batch_size=4 with trainer.accumulate_grad_batches=2" in text
    assert "data.patch_zyx=[96, 96, 96]" in text
    assert "trainer.precision=bf16-mixed" in text
    assert caught.value.__cause__ is error
    assert "Details" not in text


def test_a_real_allocation_that_cannot_succeed():
    with pytest.raises(OutOfMemoryError, match=r"data\.batch_size=8"), training_memory(CFG):
        torch.empty(2**58, dtype=torch.uint8)


def test_a_task_without_crops_is_told_what_there_is():
    cfg = OmegaConf.create({"trainer": {"precision": "bf16-mixed", "accumulate_grad_batches": 4}})
    expected = r"with trainer\.precision=bf16-mixed: MemoryError"
    with pytest.raises(OutOfMemoryError, match=expected), training_memory(cfg):
        raise MemoryError


@pytest.mark.parametrize(
    ("batch", "advice"), [(4, "batch_size=1"), (1, "roi_zyx=[64, 96, 16]")], ids=["batch", "window"]
)
def test_inference_names_the_window(batch, advice):
    with pytest.raises(OutOfMemoryError) as caught, inference_memory([96, 128, 16], batch):
        raise torch.OutOfMemoryError("CUDA out of memory.")
    assert f"Try {advice}" in str(caught.value)


def test_other_errors_pass_unchanged():
    with pytest.raises(RuntimeError, match="shape mismatch"), training_memory(CFG):
        raise RuntimeError("shape mismatch")
