"""How much the networks of an ensemble differ: `hinton2015/ensemble` on the spoken digits.

    python benchmarks/ensemble_diversity.py RUN... --root data

RUN: folders of `kdrun distill experiment=hinton2015/ensemble...` runs. For the frames of the
training and the test recordings: the mean accuracy of one teacher, the accuracy of all together
(mean of their probabilities), the share of frames on which two teachers disagree (mean over pairs),
and the share that at least one of them gets right. Percent.
"""

import argparse
import itertools
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import kdrun
from kdrun.data.images import Split
from kdrun.data.speech import speech_digits

BATCH = 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--root", default="data", help="folder of the recordings")
    arguments = parser.parse_args()
    print("| test speakers | frames | one network | ensemble | two disagree | one of them right |")
    print("|---|---|---|---|---|---|")
    for run in arguments.runs:
        result = json.loads((run / "result.json").read_text())
        if not result["teachers"]:  # a baseline
            continue
        settings = card_settings(Path(result["teachers"][0]["checkpoint"]), arguments.root)
        data = speech_digits(**settings)
        networks = [kdrun.load(t["checkpoint"]).network for t in result["teachers"]]
        who = ", ".join(settings.get("test_speakers") or ["all"])
        for name, split in (("training", data.train), ("test", data.test)):
            assert split is not None
            cells = " | ".join(f"{100 * value:.2f}" for value in figures(networks, split))
            print(f"| {who} | {name} | {cells} |", flush=True)


def card_settings(checkpoint: Path, root: str) -> dict[str, Any]:
    """Arguments of `speech_digits` with which a teacher was trained."""
    stored = dict(kdrun.load(checkpoint).card.extra["dataset"])
    names = ("mels", "frames_before", "frames_after", "window_ms", "hop_ms", "test_speakers")
    return {"root": root, **{name: stored[name] for name in names if name in stored}}


@torch.no_grad()
def figures(networks: list[nn.Module], split: Split) -> tuple[float, float, float, float]:
    """(mean accuracy, accuracy of the ensemble, mean disagreement of pairs, any right), shares."""
    answers: list[Tensor] = []
    together = torch.zeros(len(split), 10)
    for network in networks:
        rows = torch.arange(len(split)).split(BATCH)
        logits = torch.cat([network(split.images.gather(index)) for index in rows])
        together += logits.softmax(dim=1)
        answers.append(logits.argmax(dim=1))
    right = torch.stack([answer == split.targets for answer in answers])
    pairs = itertools.combinations(answers, 2)
    disagreement = torch.stack([(a != b).double().mean() for a, b in pairs]).mean()
    return (
        right.double().mean().item(),
        (together.argmax(dim=1) == split.targets).double().mean().item(),
        disagreement.item(),
        right.any(dim=0).double().mean().item(),
    )


if __name__ == "__main__":
    main()
