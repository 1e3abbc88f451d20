"""Running a verb that has a configuration: compose once, then run it, or each job of its sweep."""

from pathlib import Path

from kdrun.cli import planning, untrusted, verbs
from kdrun.cli.output import Progress, say
from kdrun.cli.parser import Flags, parse_composed
from kdrun.cli.verbs import config_names
from kdrun.config.composition import VERSION_BASE
from kdrun.errors import EXIT_DONE, ConfigError, KdrunError
from kdrun.runs.sweeps import SweepFolder
from kdrun.variables import process_argv
from kdrun.world import world


def run_verb(verb: str, argv: list[str], sweep_dir: Path | None = None) -> int:
    """Run `kdrun VERB argv...` and return its exit code. Raises KdrunError for a failed run.

    sweep_dir: the folder of a sweep to resume; None makes a new one.
    """
    flags = parse_composed(verb, argv)
    if flags.hydra_help:
        _print_hydra_info(verb, flags)
        return EXIT_DONE
    plan = planning.check(verb, flags)
    if flags.info is not None:
        _print_hydra_info(verb, plan.flags)
        return EXIT_DONE
    if plan.shown is not None:
        say(plan.shown)
        return EXIT_DONE
    _check_together(verb, plan)
    if flags.dry_run is not None:
        show_dry_run(plan, flags.dry_run)
        return EXIT_DONE
    if plan.sweep_dir is None:
        try:
            verbs.module(verb).execute(plan.configs[0], plan.argvs[0])
        except SystemExit as error:  # raised by user code: must not count as success
            raise KdrunError(f"Code of this command called sys.exit({error.code!r}).") from None
        return EXIT_DONE
    if sweep_dir is None:
        untrusted.remember(verb, flags.to_argv())
    return run_sweep(verb, plan, flags.to_argv(), SweepFolder(sweep_dir or plan.sweep_dir))


def run_sweep(verb: str, plan: planning.Plan, typed: list[str], folder: SweepFolder) -> int:
    """Run the jobs of a sweep; returns the worst exit code. typed: what followed the verb."""
    from kdrun.sweeps import executor
    from kdrun.sweeps.plan import SweepPlan

    module = verbs.module(verb)
    sweep = SweepPlan(folder, [verb, *typed], plan.configs, plan.argvs, plan.launcher)
    return executor.run(sweep, module.execute, getattr(module, "execute_in", None))


def show_dry_run(plan: planning.Plan, choice: str) -> None:
    """Print what a command would run. choice: `time` also times a few steps."""
    from kdrun.config.schema import DistillConfig, TrainTeacherConfig
    from kdrun.runs.sweeps import different
    from kdrun.sweeps.dry_run import PlannedJob, dry_run

    settings = different(plan.argvs) if len(plan.argvs) > 1 else [plan.argvs[0][1:]]
    jobs = [
        PlannedJob(number, " ".join(words), config)
        for number, (config, words) in enumerate(zip(plan.configs, settings, strict=True), 1)
        if isinstance(config, DistillConfig | TrainTeacherConfig)
    ]
    executes = {
        DistillConfig: verbs.module("distill").execute,
        TrainTeacherConfig: verbs.module("train-teacher").execute,
    }
    dry_run(
        jobs,
        say,
        reuse=plan.sweep_dir is not None,
        processes=plan.launcher.processes,
        executes=executes if choice == "time" else None,
        progress=Progress("looking up jobs", len(jobs)).show,
    )


def _check_together(verb: str, plan: planning.Plan) -> None:
    """Raise ConfigError for flags that do not work with several processes."""
    if world().size == 1:
        return
    if not verbs.module(verb).TORCHRUN:
        raise ConfigError(f"kdrun {verb} runs in one process: start it without torchrun.")
    if plan.sweep_dir is not None:
        raise ConfigError(
            "Under torchrun all processes train one network: leave out -m, or start the sweep "
            "without torchrun, with hydra/launcher=joblib for several jobs at once."
        )
    if any(config.runtime.compile for config in plan.configs):
        raise ConfigError("compile=true is for one process: leave it out under torchrun.")


def _print_hydra_info(verb: str, flags: Flags) -> None:
    """`--info` and `--hydra-help`, which only `hydra.main` offers; it reads `sys.argv`."""
    import hydra

    main = hydra.main(
        version_base=VERSION_BASE,
        config_path="pkg://kdrun.configs",
        config_name=config_names()[verb],
    )
    with process_argv([f"kdrun {verb}", *flags.to_argv()]):
        try:
            main(lambda cfg: None)()
        except SystemExit as error:  # Hydra exits after printing its own errors
            if error.code not in (0, None):
                raise KdrunError("Hydra could not run this command; the reason is above.") from None
