"""Gradient norm of every loss at its published weight, as a multiple of CE's; for `weight: auto`.

    python benchmarks/measure_weights.py data resnet56.pth

`data` holds CIFAR-100, `resnet56.pth` RepDistiller's teacher. Measured as `loss.ID.weight=auto` is:
ResNet-56 → ResNet-20 before the first step, mean over the first batches of 64 training images,
parameters of the student that both CE and the loss reach. Prints a table and the dictionary of
`kdrun/losses/auto_weight.py`. Losses without CE, and losses that are pre-trained, are left out.
"""

import argparse
from itertools import islice

from hydra import compose, initialize_config_module

from kdrun.benchmarking.variants import untrained_scheme
from kdrun.config.composition import register
from kdrun.config.parse import distill_config
from kdrun.config.schema import DistillConfig
from kdrun.distillation.loss_weights import gradient_norms
from kdrun.distillation.session import open_data, open_session, train_loader
from kdrun.errors import ConfigError
from kdrun.losses.catalogue import entries


def main() -> None:
    """Measure every loss."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("root")
    parser.add_argument("checkpoint")
    parser.add_argument("losses", nargs="*", help="all by default")
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", default="outputs", help="for decoded images")
    options = parser.parse_args()
    register()
    first = config_of("kd", options)
    found = {}
    print("| loss | weight | CE | gradient of CE | of the loss | ratio at this weight |")
    print("|---|---|---|---|---|---|")
    with open_session(first.runtime) as session:
        dataset = open_data(session, first.dataset, first.val_fraction)
        for name in options.losses or entries():
            if name == "ce":
                continue
            config = config_of(name, options)
            try:
                scheme = untrained_scheme(config, dataset, session)
            except ConfigError as error:
                print(f"| {name} | {error} | | | | |")
                continue
            objective = scheme.objective
            weighted = objective.weighted[name]
            if not objective.ce_weight or weighted.loss.pretraining() is not None:
                continue
            session.place(scheme)
            scheme.start_epoch(0, config.schedule.epochs)
            augment, size = config.dataset.augment, config.schedule.batch_size
            loader = train_loader(session, dataset, config.dataset, augment, size, config.seed)
            batches = islice(loader.epoch(0), options.batches)
            ce, norm = gradient_norms(scheme, batches, session.device, seed=config.seed)[name]
            found[name] = float(f"{norm / ce:.2g}")
            plain = ce / objective.ce_weight, norm / weighted.weight
            print(
                f"| {name} | {weighted.weight:g} | {objective.ce_weight:g} | {plain[0]:.3g} | "
                f"{plain[1]:.3g} | {norm / ce:.3g} |",
                flush=True,
            )
    print(found)


def config_of(loss: str, options: argparse.Namespace) -> DistillConfig:
    """The published experiment with one loss at the weight of its YAML."""
    words = [
        "experiment=repdistiller/resnet56_to_resnet20",
        f"dataset.root={options.root}",
        f"teacher.checkpoint={options.checkpoint}",
        f"loss={loss}",
        f"threads={options.threads}",
        f"output_root={options.out}",
        "device=cpu",
        "teacher.cache=off",
    ]
    with initialize_config_module("kdrun.configs", version_base="1.3"):
        return distill_config(compose("distill", overrides=words))


if __name__ == "__main__":
    main()
