"""The launcher of local_gpus.yaml and local_cpus.yaml in conf/hydra/launcher: hydra-ray-launcher, for runs in order."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.utils import setup_globals
from omegaconf import DictConfig, OmegaConf, open_dict

from hydra_plugins.grid.missing import MissingLauncher

try:
    from hydra_plugins.hydra_ray_launcher.ray_launcher import RayLauncher
except ImportError:
    RayLauncher = None  # type: ignore[misc, assignment]

if TYPE_CHECKING:
    from experiments.sweeps.planning import Planned

logger = logging.getLogger(__name__)

if RayLauncher is None:

    class LocalGpusLauncher(MissingLauncher):
        """Says what is missing."""

        needs = "hydra/launcher=local_gpus and local_cpus need hydra-ray-launcher: pip install -e '.[gpus]'"

else:

    class LocalGpusLauncher(RayLauncher):  # type: ignore[no-redef]
        """Hands every run to Ray at once, which gives it a GPU or a core when one is free and what it needs is done."""

        def launch_grid(self, todo: Sequence["Planned"], sweep: Path) -> None:
            """Carry out the runs, and wait until all of them are over.

            Raises:
                InputError: this machine has not as many GPUs as one run wants.
            """
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
            os.environ.setdefault("RAY_agent_register_timeout_ms", "120000")  # a busy machine takes longer than 15 s
            import ray

            from experiments.sweeps import planning

            setup_globals()
            ray.init(**{name: value for name, value in self.ray_cfg.init.items() if value is not None})
            try:
                self.check_gpus(ray.cluster_resources().get("GPU", 0))
                with planning.submitted(todo, sweep):
                    settle(todo, self._begin(todo))
            finally:
                ray.shutdown()

        def check_gpus(self, found: float) -> None:
            """Refuse to wait for what will never be free.

            Raises:
                InputError: this machine has not as many GPUs as one run wants.
            """
            from lightning_modules.errors import InputError

            wanted = self.ray_cfg.remote.num_gpus
            if wanted > found:
                raise InputError(
                    f"hydra/launcher=local_gpus: found {found:g} GPUs, expected at least {wanted:g} for one run; "
                    "hydra/launcher=local_cpus runs one on each core"
                )
            if wanted:
                logger.info("%g GPUs, %g for each run", found, wanted)

        def _begin(self, todo: Sequence["Planned"]) -> list[Any]:
            """Hand all runs to Ray; a run begins after the ones that it needs."""
            import ray
            from hydra.core.singleton import Singleton

            assert self.config is not None and self.hydra_context is not None
            carry_out = ray.remote(**OmegaConf.to_container(self.ray_cfg.remote))(_carry_out)  # type: ignore[arg-type]
            state = ray.put(Singleton.get_state())
            begun: list[Any] = []
            for position, entry in enumerate(todo):
                config = self.hydra_context.config_loader.load_sweep_config(self.config, list(entry.overrides))
                with open_dict(config):
                    config.hydra.job.id = config.hydra.job.num = position
                needs = [begun[need] for need in entry.needs]
                begun.append(carry_out.remote(self.hydra_context, config, self.task_function, state, *needs))
            return begun


def _carry_out(hydra_context: Any, config: DictConfig, task_function: Any, state: Any, *needs: None) -> None:
    """Carry out a run, in a process of its own. What it raises is in its folder already."""
    from hydra_plugins.hydra_ray_launcher._launcher_util import _run_job

    _run_job(hydra_context=hydra_context, sweep_config=config, task_function=task_function, singleton_state=state)


def settle(todo: Sequence["Planned"], begun: list[Any]) -> None:
    """Wait for all runs; where a process died, note it in the folders of its run and of those that need it."""
    import ray

    from experiments.runs import state

    left = dict(zip(begun, todo, strict=True))
    while left:
        (over,), _ = ray.wait(list(left))
        entry = left.pop(over)
        folder = entry.run.folder
        try:
            ray.get(over)
        except ray.exceptions.RayError as error:
            if state.read_failure(folder) is None:
                needed = [todo[need] for need in entry.needs if todo[need].run.metrics is None]
                needs = f"needs {needed[0].run.config.name}, which failed: " if needed else ""
                state.write_failure(folder, f"{needs}its process died ({' '.join(str(error).split())[:200]})")
        outcome = "finished" if entry.run.metrics is not None else "failed"
        logger.info("%s: %s, %d to go", entry.label, outcome, len(left))
