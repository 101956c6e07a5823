"""Puts a SLURM job back into the queue when its time is up."""

import logging
import os
import re
import signal
import subprocess
import threading
from collections.abc import Mapping

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import SIGTERMException

log = logging.getLogger(__name__)


class SlurmRequeue(Callback):
    """Requeues this SLURM job after SIGUSR1, once `EmergencyCheckpoint` has saved the state.

    Ask SLURM for the signal and give the run a folder of its own, which the next start finds:

        #SBATCH --signal=SIGUSR1@120 --requeue --open-mode=append
        srun python train.py ... ckpt_path=auto hydra.run.dir=logs/slurm/$SLURM_JOB_ID

    A requeued job keeps its id, so the same line goes on where the former stopped. Must come after
    the emergency checkpoint in the callbacks. Outside SLURM it does nothing.

    Args:
        folder: of the run; named in the log.
        on_sigterm: requeue after every SIGTERM. SLURM sends it at a preemption, which is told
            apart and requeued anyway, and at `scancel`, after which nobody wants it.
    """

    def __init__(self, *, folder: str, on_sigterm: bool = False) -> None:
        self.folder = folder
        self.on_sigterm = on_sigterm
        self._requested = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen to SIGUSR1 instead of Lightning, whose requeueing loses the begun epoch.

        Lightning remembers the handlers of before this hook and gives them back at the end.
        """
        del trainer, pl_module
        self._requested = False
        in_main = threading.current_thread() is threading.main_thread()
        if in_main and job_id(os.environ) is not None:
            signal.signal(signal.SIGUSR1, self._on_signal)

    def _on_signal(self, *_: object) -> None:
        self._requested = True
        signal.raise_signal(signal.SIGTERM)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Requeue from rank zero if a signal ended the training."""
        del pl_module
        job = job_id(os.environ)
        if job is None or trainer.state.fn != TrainerFn.FITTING or not trainer.is_global_zero:
            return
        terminated = isinstance(exception, SIGTERMException)
        wanted = self._requested or (terminated and (self.on_sigterm or is_preempted(job)))
        if wanted and requeue(job):
            log.warning("SLURM job %s is back in the queue; it goes on in %s", job, self.folder)


def job_id(environment: Mapping[str, str]) -> str | None:
    """Return what `scontrol` calls this job, `<array>_<task>` in an array; None outside SLURM."""
    array, task = environment.get("SLURM_ARRAY_JOB_ID"), environment.get("SLURM_ARRAY_TASK_ID")
    name = f"{array}_{task}" if array and task else environment.get("SLURM_JOB_ID", "")
    return name if re.fullmatch(r"\d+(_\d+)?", name) else None


def is_preempted(job: str) -> bool:
    """Return whether SLURM is taking the job's place for another one.

    A job that leaves within the partition's grace time counts as completed: SLURM requeues only
    what it had to kill, so a run that saves and leaves in time has to requeue itself.
    """
    try:
        done = subprocess.run(
            ["scontrol", "show", "job", job],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    found = re.search(r"\bPreemptTime=(\S+)", done.stdout)
    return found is not None and found[1] not in ("None", "N/A", "Unknown")


def requeue(job: str) -> bool:
    """Return whether `scontrol requeue` took the job; otherwise say why not."""
    try:
        done = subprocess.run(
            ["scontrol", "requeue", job], capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        log.error("job %s was not requeued: %s", job, error)  # noqa: TRY400 - the message says all
        return False
    if done.returncode:
        log.error("job %s was not requeued: scontrol: %s", job, done.stderr.strip())
    return done.returncode == 0
