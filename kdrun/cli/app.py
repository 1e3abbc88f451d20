"""Running a verb through Hydra: `hydra.main` with a task per verb, single runs and sweeps.

Hydra prints the errors of a task in its own way and forgets return values, so the tasks here
never let an exception reach it: a single run keeps the error for the caller, a job of a sweep
leaves its exit code in a file (it may run in another process).
"""

import contextlib
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from kdrun.cli import preflight, teachers
from kdrun.cli.flags import Flags, split
from kdrun.cli.groups import CONFIG_NAMES
from kdrun.cli.output import say
from kdrun.config import resolvers
from kdrun.errors import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, KdrunError

# At import, not at call: a launcher's worker processes import this module for its tasks.
resolvers.register()

CONFIG_PATH = "pkg://kdrun.configs"
JOBS_FOLDER = ".jobs"

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


def run_verb(verb: str, argv: list[str]) -> int:
    """Run `kdrun VERB argv...` and return its exit code. Raises KdrunError for a failed run."""
    flags = split(verb, argv)
    if flags.help:
        from kdrun.cli import pages

        say(pages.verb(verb, CONFIG_NAMES[verb], flags.config_dir))
        return EXIT_DONE
    if flags.hydra_only:
        _hydra_main(verb, flags.to_argv())
        return EXIT_DONE
    plan = preflight.check(verb, CONFIG_NAMES[verb], flags)
    if flags.only_shows:
        _hydra_main(verb, plan.flags.to_argv())
        return EXIT_DONE
    if plan.sweep_dir is None:
        return _single(verb, plan.flags)
    return _sweep(verb, plan)


def _single(verb: str, flags: Flags) -> int:
    _errors.clear()
    _hydra_main(verb, flags.to_argv())
    if _errors:
        raise _errors.pop()
    return EXIT_DONE


def _sweep(verb: str, plan: preflight.Plan) -> int:
    """Run all jobs; the worst of their exit codes is the sweep's."""
    from kdrun.stages import sweep

    sweep_dir = plan.sweep_dir
    assert sweep_dir is not None
    jobs_dir = sweep_dir / JOBS_FOLDER
    sweep.announce(sweep_dir, plan.configs, plan.argvs)
    jobs_dir.mkdir(parents=True, exist_ok=True)
    try:
        _hydra_main(verb, [*plan.flags.to_argv(), f"hydra.sweep.dir={quoted(str(sweep_dir))}"])
    finally:
        codes = [path.read_text() for path in jobs_dir.iterdir()]
        shutil.rmtree(jobs_dir, ignore_errors=True)
        if codes:
            sweep.summarise(sweep_dir)
    return max((int(code) for code in codes), default=EXIT_FAILED)


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
    if runtime.mode == RunMode.MULTIRUN:
        _job(verb, cfg, Path(runtime.sweep.dir), int(runtime.job.num))
        return
    try:
        _call(verb, cfg, sweep_dir=None, job=0)
    except Exception as error:
        _errors.append(error)


def _job(verb: str, cfg: DictConfig, sweep_dir: Path, number: int) -> None:
    """One job of a sweep; its exit code is left in a file for the process that runs the sweep."""
    marker = sweep_dir / JOBS_FOLDER / str(number)
    marker.parent.mkdir(parents=True, exist_ok=True)
    marker.write_text(str(EXIT_INTERRUPTED))
    marker.write_text(
        str(job_code(number, lambda: _call(verb, cfg, sweep_dir=sweep_dir, job=number)))
    )


def job_code(number: int, call: Callable[[], object]) -> int:
    """Run one job of a sweep: a failure is said, and returned as a code that stops nothing."""
    from kdrun.cli.main import say_bug
    from kdrun.ui import console

    try:
        call()
    except KdrunError as error:
        console.error(f"job {number}: {error}")
        return error.exit_code
    except Exception as error:
        console.error(f"job {number} failed:")
        say_bug(error)
        return EXIT_FAILED
    return EXIT_DONE


def _call(verb: str, cfg: DictConfig, sweep_dir: Path | None, job: int) -> None:
    folders = _config_dirs()
    config = preflight.typed_config(verb, cfg, Path(folders[0]) if folders else None)
    command(verb)(config, _job_argv(verb), sweep_dir=sweep_dir, job=job)


def command(verb: str) -> Callable[..., object]:
    """What runs the verb, given its configuration; importing it imports torch."""
    from kdrun.stages import commands

    function: Callable[..., object] = getattr(commands, verb.replace("-", "_"))
    return function


def _job_argv(verb: str) -> list[str]:
    """What to type after `kdrun` to run this one job again."""
    flags = [word for folder in _config_dirs() for word in ("--config-dir", folder)]
    return [verb, *flags, *teachers.gathered(HydraConfig.get().overrides.task)]


def _config_dirs() -> list[str]:
    """The folder of `--config-dir`, if it was given."""
    sources = HydraConfig.get().runtime.config_sources
    return [source.path for source in sources if source.provider == "command-line"]


def quoted(text: str) -> str:
    """`text` as a quoted value of Hydra's override grammar."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
