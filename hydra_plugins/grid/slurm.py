"""The launcher of conf/hydra/launcher/slurm.yaml: hydra-submitit-launcher, for runs that need each other."""

import logging
import shlex
import shutil
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn

from hydra_plugins.grid.missing import MissingLauncher

try:
    from hydra_plugins.hydra_submitit_launcher.submitit_launcher import SlurmLauncher
except ImportError:
    SlurmLauncher = None

if TYPE_CHECKING:
    from experiments.runs.run import Run
    from experiments.sweeps.planning import Planned

logger = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[2]
# Both end up in every job: the code of this folder, and as many threads as the job has processors.
SETUP = (
    f"export PYTHONPATH={shlex.quote(str(ROOT))}${{PYTHONPATH:+:$PYTHONPATH}}",
    "export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}",
    "export OMP_NUM_THREADS=${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}",
)
# A result may reach this machine over the network file system a little later than the end of its job.
GRACE_S = 5.0
POLL_S = (1.0, 15.0)

if SlurmLauncher is None:

    class GridSlurmLauncher(MissingLauncher):
        """Says what is missing."""

        needs = "hydra/launcher=slurm needs hydra-submitit-launcher: pip install -e '.[slurm]'"

else:

    class GridSlurmLauncher(SlurmLauncher):  # type: ignore[no-redef]
        """Submits a job array, what depends on a run of it with Slurm's own dependencies, and waits for all.

        In the job, it turns a failed run into a failed job.
        """

        def __init__(self, auto_precision: str | None, wait_anyway: bool = False, **params: Any) -> None:
            super().__init__(**params)
            self.auto_precision, self.wait_anyway = auto_precision, wait_anyway
            self.folders: list[Path] = []

        def launch_grid(self, todo: Sequence["Planned"], sweep: Path) -> None:
            """Submit what is not in the queue already, and wait until all of it is over.

            Raises:
                InputError: Slurm is not here, or refuses the jobs.
            """
            from experiments.machine import slurm
            from experiments.sweeps import planning
            from lightning_modules.errors import InputError

            if shutil.which("sbatch") is None:
                raise InputError("hydra/launcher=slurm: no sbatch found, expected a machine that submits to Slurm")
            jobs = _under_way(todo)
            new = [position for position in range(len(todo)) if position not in jobs]
            with planning.submitted([todo[position] for position in new], sweep):
                self.folders = [entry.run.folder for entry in todo]
                self._submit(todo, new, jobs, sweep)
                slurm.rename({jobs[position]: todo[position].label for position in new})
                try:
                    wait(todo, jobs, self.params, self.wait_anyway)
                except KeyboardInterrupt:
                    ids = " ".join(sorted({job.partition("_")[0] for job in jobs.values()}, key=int))
                    logger.info("the jobs go on, and the same command finds them again; to end them: scancel %s", ids)
                    raise

        def _submit(self, todo: Sequence["Planned"], new: list[int], jobs: dict[int, str], sweep: Path) -> None:
            """Submit one array for all that need nothing, and one for those that need the same job; add their ids."""
            from experiments.runs import state

            groups: dict[tuple[int, ...], list[int]] = {}
            for position in new:
                groups.setdefault(todo[position].needs, []).append(position)
            for needs, positions in groups.items():
                submitted = self._submit_array(todo, positions, [jobs[need] for need in needs])
                for position, job in zip(positions, submitted, strict=True):
                    jobs[position] = job.job_id
                    folder = todo[position].run.folder
                    log = sweep / f"{todo[position].label}.{folder.name}.log"
                    log.symlink_to(job.paths.stdout)
                    state.write_job(folder, state.Job(str(sweep), job.job_id, str(log)))
                after = f", after {' '.join(jobs[need] for need in needs)}" if needs else ""
                logger.info("Slurm job %s: %d runs%s", submitted[0].job_id.partition("_")[0], len(positions), after)

        def _submit_array(self, todo: Sequence["Planned"], positions: list[int], after: list[str]) -> list[Any]:
            import submitit

            from experiments.machine.slurm_limits import SIZES, advice
            from lightning_modules.errors import InputError

            parameters = dict(self.params)
            executor = submitit.AutoExecutor(
                parameters.pop("submitit_folder"),
                cluster="slurm",
                slurm_max_num_timeout=parameters.pop("max_num_timeout"),
            )
            general = {"timeout_min", "cpus_per_task", "gpus_per_node", "tasks_per_node", "mem_gb", "nodes", "name"}
            parameters["setup"] = [*SETUP, *(parameters["setup"] or ())]
            dependency = {"dependency": "afterany:" + ":".join(after)} if after else {}
            options = {"requeue": True, **parameters["additional_parameters"], **dependency}
            parameters["additional_parameters"] = options
            state = Singleton.get_state()
            calls = [(list(todo[i].overrides), "hydra.sweep.dir", i, todo[i].label, state) for i in positions]
            try:
                executor.update_parameters(
                    stderr_to_stdout=True,
                    **{name if name in general else f"slurm_{name}": value for name, value in parameters.items()},
                )
                return list(executor.map_array(self, *zip(*calls, strict=True)))
            except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as error:
                said = " ".join(str(error).split())
                less = advice(self.params, SIZES)
                more = "" if less is None else f"; {less}"
                raise InputError(f"hydra/launcher=slurm: sbatch refused the jobs: {said}{more}") from None

        def __call__(self, sweep_overrides: list[str], job_dir_key: str, job_num: int, *others: Any) -> JobReturn:
            """Carry out one run, in its job."""
            requeue_when_told_to(self.folders[job_num])
            result = super().__call__(sweep_overrides, job_dir_key, job_num, *others)
            result.return_value  # noqa: B018  raises what the run raised
            return result


def _under_way(todo: Sequence["Planned"]) -> dict[int, str]:
    """Return the jobs of an earlier sweep that are queued or run and will carry a run out."""
    from experiments.machine import slurm
    from experiments.runs import state

    states = slurm.states() or {}
    jobs = {}
    for position, entry in enumerate(todo):
        job = state.read_job(entry.run.folder)
        if job is not None and job.slurm in states and states[job.slurm] not in slurm.OVER:
            jobs[position] = job.slurm
            logger.info("%s is Slurm job %s of an earlier sweep already", entry.label, job.slurm)
    return jobs


def wait(todo: Sequence["Planned"], jobs: dict[int, str], asked: Mapping[str, Any], wait_anyway: bool = False) -> None:
    """Wait for jobs; where one is over and its run says nothing, note in the run's folder how the job ended.

    Args:
        todo: the runs.
        jobs: the id of each one's job, by its position.
        asked: the launcher's settings.
        wait_anyway: whether to wait for a job that will never start as things are; if not, it is cancelled.
    """
    from experiments.machine import slurm, slurm_limits
    from experiments.runs import state

    patience, said = slurm_limits.Patience(asked), set[str]()
    logger.info("watch them: python -m experiments status --watch; Ctrl-C here does not end them")
    left, pause = dict(jobs), POLL_S[0]
    over_since: dict[str, float] = {}
    while left:
        queue = slurm.queue()
        for position, job in list(left.items()):
            run, why = todo[position].run, patience.why_over(job, queue)
            if why is not None and job not in said:
                logger.warning("%s: %s", todo[position].label, why)
                said.add(job)
            if why is not None and not wait_anyway:
                slurm.cancel(job)
                state.write_failure(run.folder, why)
            elif queue is None or (job in queue and queue[job].state not in slurm.OVER):
                over_since.pop(job, None)
                continue
            elif not _is_noted(run, job, over_since.setdefault(job, time.monotonic())):
                continue
            del left[position]
            logger.info("%s: %s, %d to go", todo[position].label, "finished" if run.metrics else "failed", len(left))
        if left:
            time.sleep(pause)
        pause = min(pause * 1.2, POLL_S[1])


def _is_noted(run: "Run", job: str, over_since: float) -> bool:
    """Tell whether the folder of a run whose job is over says what came of it; note it there after a while."""
    from experiments.machine import slurm
    from experiments.runs import state

    if run.metrics is None and state.read_failure(run.folder) is None:
        if time.monotonic() - over_since < GRACE_S:
            return False
        recorded = state.read_job(run.folder)
        log = recorded.log if recorded else None
        state.write_failure(run.folder, slurm.end(job, slurm.state_of(job), log), log)
    return True


def requeue_when_told_to(folder: Path) -> None:
    """In a Slurm job, have it queued again when it is preempted or its time is up; end when it is cancelled.

    submitit has the job queued again on SIGUSR2. Some sites announce a preemption by SIGTERM, which is also what
    scancel sends.
    """
    from experiments.machine import slurm
    from experiments.runs import state

    queue_again = signal.getsignal(signal.SIGUSR2)
    assert callable(queue_again)

    def on_sigusr2(number: int, frame: FrameType | None) -> None:
        state.mark_started(folder, started=False)
        queue_again(signal.SIGUSR2, frame)

    def on_sigterm(number: int, frame: FrameType | None) -> NoReturn:
        if (job := slurm.this_job()) is not None and slurm.state_of(job) == "RUNNING":
            on_sigusr2(number, frame)
        raise SystemExit(128 + number)

    signal.signal(signal.SIGUSR2, on_sigusr2)
    signal.signal(signal.SIGTERM, on_sigterm)
