"""Running a verb through Hydra: `hydra.main` with a task per verb, single runs and sweeps.

Hydra prints the errors of a task in its own way and forgets return values, so the tasks here
never let an exception reach it: a single run keeps the error for the caller, a job of a sweep
leaves how it ended in the sweep's folder (`kdrun.cli.sweeps`).
"""

import contextlib
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from kdrun.cli import foreign, preflight, teachers
from kdrun.cli.flags import Flags, split
from kdrun.cli.groups import CONFIG_NAMES
from kdrun.cli.output import say
from kdrun.cli.typed import typed_config
from kdrun.config import resolvers
from kdrun.errors import EXIT_DONE, ConfigError, KdrunError
from kdrun.runs.sweeps import SweepFolder
from kdrun.world import world

# At import, not at call: a launcher's worker processes import this module for its tasks.
resolvers.register()

# `configs/hydra/launcher` keeps the names of the plugins' own launchers, so that Hydra checks it
# against theirs, which is wanted here.
warnings.filterwarnings(
    "ignore", message=r"\s*'hydra/launcher/\w+' is validated against ConfigStore"
)

CONFIG_PATH = "pkg://kdrun.configs"

# What several processes, started by torchrun, can do together.
TOGETHER = ("train-teacher", "distill", "evaluate")

_errors: list[BaseException] = []


def train_teacher_task(cfg: DictConfig) -> None:
    """What Hydra calls for `kdrun train-teacher`."""
    _task("train-teacher", cfg)


def distill_task(cfg: DictConfig) -> None:
    """What Hydra calls for `kdrun distill`."""
    _task("distill", cfg)


def evaluate_task(cfg: DictConfig) -> None:
    """What Hydra calls for `kdrun evaluate`."""
    _task("evaluate", cfg)


def export_task(cfg: DictConfig) -> None:
    """What Hydra calls for `kdrun export`."""
    _task("export", cfg)


def benchmark_task(cfg: DictConfig) -> None:
    """What Hydra calls for `kdrun benchmark`."""
    _task("benchmark", cfg)


TASKS: dict[str, Callable[[DictConfig], None]] = {
    "train-teacher": train_teacher_task,
    "distill": distill_task,
    "evaluate": evaluate_task,
    "export": export_task,
    "benchmark": benchmark_task,
}


def run_verb(verb: str, argv: list[str], sweep_dir: Path | None = None) -> int:
    """Run `kdrun VERB argv...` and return its exit code. Raises KdrunError for a failed run.

    sweep_dir: the folder of a sweep that goes on; None makes a new one.
    """
    flags = split(verb, argv)
    if flags.help:
        from kdrun.cli import pages

        say(pages.verb(verb, CONFIG_NAMES[verb], flags.config_dir))
        return EXIT_DONE
    if flags.hydra_only:
        _hydra_main(verb, flags.to_argv())
        return EXIT_DONE
    plan = preflight.check(verb, CONFIG_NAMES[verb], flags)
    _check_together(verb, plan)
    if flags.only_shows:
        _hydra_main(verb, plan.flags.to_argv())
        return EXIT_DONE
    if plan.sweep_dir is None:
        return _single(verb, plan.flags)
    from kdrun.cli import sweeps

    if sweep_dir is None:
        foreign.remember(verb, flags.to_argv())
    folder = SweepFolder(sweep_dir or plan.sweep_dir)
    words = [*plan.flags.to_argv(), f"hydra.sweep.dir={quoted(str(folder.path))}"]
    launch = partial(_hydra_main, verb, words)
    if verb == "distill" and any(sweeps.runtime_of(config).gang for config in plan.configs):
        launch = partial(sweeps.run_gangs, folder, plan)
    return sweeps.run(folder, [verb, *flags.to_argv()], plan, launch)


def _check_together(verb: str, plan: preflight.Plan) -> None:
    """Raise ConfigError for what several processes cannot do together."""
    if world().size == 1:
        return
    if verb not in TOGETHER:
        raise ConfigError(f"kdrun {verb} is the work of one process: start it without torchrun.")
    if plan.sweep_dir is not None:
        raise ConfigError(
            "Under torchrun all processes train one network: leave out -m, or start the sweep "
            "without torchrun, with hydra/launcher=joblib for several jobs at once."
        )
    if any(config.runtime.compile for config in plan.configs if hasattr(config, "runtime")):
        raise ConfigError("compile=true is for one process: leave it out under torchrun.")


def _single(verb: str, flags: Flags) -> int:
    _errors.clear()
    _hydra_main(verb, flags.to_argv())
    if _errors:
        raise _errors.pop()
    return EXIT_DONE


def _hydra_main(verb: str, argv: list[str]) -> None:
    with _process_argv([f"kdrun {verb}", *argv]):
        decorate = hydra.main(
            version_base=preflight.VERSION_BASE,
            config_path=CONFIG_PATH,
            config_name=CONFIG_NAMES[verb],
        )
        try:
            decorate(TASKS[verb])()
        except SystemExit as error:  # Hydra's end after printing an error of its own
            if error.code not in (0, None):
                raise KdrunError("Hydra could not run this command; the reason is above.") from None


@contextlib.contextmanager
def _process_argv(argv: list[str]) -> Iterator[None]:
    """Hydra reads the process's own arguments."""
    before = sys.argv
    sys.argv = argv
    try:
        yield
    finally:
        sys.argv = before


def _task(verb: str, cfg: DictConfig) -> None:
    runtime = HydraConfig.get()
    folders = _config_dirs()
    config_dir = Path(folders[0]) if folders else None
    if runtime.mode == RunMode.MULTIRUN:
        from kdrun.cli import sweeps

        number, folder = int(runtime.job.num), SweepFolder(Path(runtime.sweep.dir))
        typed = partial(typed_config, verb, cfg, config_dir)
        argv = folder.read()["jobs"][number]["command"]
        sweeps.do_job(folder, number, typed, command(verb), argv)
        return
    try:
        config, argv = typed_config(verb, cfg, config_dir), _argv(verb)
        command(verb)(config, argv, sweep_dir=None, job=0)
    except SystemExit as error:  # Hydra would take it for the end of its own
        _errors.append(KdrunError(f"Code of this command ended it: SystemExit({error.code!r})."))
    except Exception as error:
        _errors.append(error)


def command(verb: str) -> Callable[..., object]:
    """What runs the verb, given its configuration; importing it imports torch."""
    from kdrun.stages import commands

    function: Callable[..., object] = getattr(commands, verb.replace("-", "_"))
    return function


def _argv(verb: str) -> list[str]:
    """What to type after `kdrun` to run this again, once."""
    flags = [word for folder in _config_dirs() for word in ("--config-dir", folder)]
    once = [word for word in sys.argv if word == preflight.ONCE]  # Hydra itself notes it always
    return [verb, *flags, *teachers.gathered(HydraConfig.get().overrides.task), *once]


def _config_dirs() -> list[str]:
    """The folder of `--config-dir`, if it was given."""
    sources = HydraConfig.get().runtime.config_sources
    return [source.path for source in sources if source.provider == "command-line"]


def quoted(text: str) -> str:
    """`text` as a quoted value of Hydra's override grammar."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
