"""The verbs of the command line, one module each: `kdrun train-teacher` is `train_teacher.py`.

A module has
    ORDER, SUMMARY   its place and its line on the front page
    run(argv)        runs `kdrun VERB argv...` and returns the exit code
    FLAGS            optional: its options as typed, each with a line of help (kdrun.cli.parser)
    USAGE, ABOUT, EXAMPLES   optional: its help page
    TRAINS           optional: True adds --dry-run

A verb with a configuration also has a YAML of the module's name in `configs/`, and
    SWEEPS, TORCHRUN whether `-m` and several processes of torchrun make sense
    config(cfg, config_dir)   the composed configuration, typed and checked
    execute(config, argv, sweep_dir, job)   the work; the only part that may import torch

The constants are literals: help and completion read them without importing the module. No module
imports torch at its top, so that a mistake is answered in a tenth of a second.
"""
