"""`kdrun predict`: classify image files."""

import json
import os
from pathlib import Path

from kdrun.cli.output import say
from kdrun.cli.parser import parse
from kdrun.errors import EXIT_DONE, ConfigError, did_you_mean

ORDER = 50
SUMMARY = "classify image files"

USAGE = "kdrun predict run=RUN IMAGE... [top=5] [--json]"
ABOUT = (
    "Predicts the classes of image files, or of all images in a folder, with their probabilities. "
    "Images are read as those of an image folder and fitted to the network's channels and size."
)
EXAMPLES = (
    ("kdrun predict run=outputs/distill/... photo.jpg", ""),
    ("kdrun predict run=outputs/teachers/... photos/ top=1", ""),
    ("kdrun predict run=outputs/distill/... photos/ --json > answers.json", ""),
)
FLAGS = {"--json": "print the predictions as JSON"}
SETTINGS = ("run", "top")


def run(argv: list[str]) -> int:
    """Print the predictions of the network of `run=` for the images in `argv`."""
    args = parse("predict", argv)
    settings, paths = _sorted(args.words)
    run_path, top = _run(settings), _top(settings)
    if not paths:
        raise ConfigError(f"predict needs an image or a folder: kdrun predict run={run_path} IMAGE")
    for path in paths:
        if not os.path.exists(path):
            raise ConfigError(f"{path}: there is no such file or folder.")
    from kdrun.evaluation import predict
    from kdrun.ui.console import note

    network = predict.open_network(run_path)
    if network.card.edited:
        note(f"warning: {network.card.edited}")
    predictions = predict.predictions(network, paths, top)
    if args.given.get("json"):
        values = [
            {
                "file": prediction.path,
                "top": [{"class": name, "probability": round(p, 6)} for name, p in prediction.top],
            }
            for prediction in predictions
        ]
        say(json.dumps(values, indent=1, ensure_ascii=False))
        return EXIT_DONE
    for prediction in predictions:
        say(f"{prediction.path}: {prediction.treatment}")
        for name, probability in prediction.top:
            say(f"  {100 * probability:6.2f} %  {name}")
    return EXIT_DONE


def _sorted(plain: list[str]) -> tuple[dict[str, str], list[str]]:
    """Settings and paths; an existing file with `=` in its name counts as a path."""
    settings: dict[str, str] = {}
    paths: list[str] = []
    for word in plain:
        name, equals, value = word.partition("=")
        if equals and name in SETTINGS:
            settings[name] = value
        elif equals and not os.path.exists(word):
            hint = did_you_mean(name, SETTINGS) or f" It has {' and '.join(SETTINGS)}."
            raise ConfigError(f"predict has no setting '{name}'.{hint}")
        else:
            paths.append(word)
    return settings, paths


def _run(settings: dict[str, str]) -> str:
    path = settings.get("run", "")
    if not path:
        raise ConfigError("run has no value: add run=FOLDER, a finished run (kdrun ls runs).")
    if not Path(path).expanduser().exists():
        raise ConfigError(
            f"run={path}: there is no such folder or file. kdrun ls runs lists the runs."
        )
    return path


def _top(settings: dict[str, str]) -> int:
    text = settings.get("top", "5")
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"top={text} must be a whole number from 1 on.")
    return int(text)
