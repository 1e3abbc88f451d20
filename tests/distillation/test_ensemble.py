"""What several networks answer together, against NumPy."""

import numpy as np
import torch
from losses.cases import made_up_data
from torch import Tensor

from kdrun.config.schema import EnsembleConfig
from kdrun.distillation.ensemble import agreement, ensemble_entry, mean_answer
from kdrun.engine.metrics import evaluation
from kdrun.losses.ensemble import Ensemble

DATA = made_up_data(1, 8, 5)


def answers(seed: int) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(len(DATA.test), 5, generator=draw)


def softmax(logits: Tensor) -> "np.ndarray[tuple[int, int], np.dtype[np.float64]]":
    powers = np.exp(logits.double().numpy())
    return powers / powers.sum(axis=1, keepdims=True)


def test_the_joint_answer_is_the_weighted_mean_of_probabilities() -> None:
    logits = [answers(seed) for seed in range(3)]
    targets = DATA.test.targets
    shares = Ensemble.of(EnsembleConfig(weights=[3.0, 1.0, 2.0]), 3).shares
    members = [evaluation(one, targets) for one in logits]
    found = mean_answer(members, DATA, shares)
    mean = sum(s * softmax(z) for s, z in zip([0.5, 1 / 6, 1 / 3], logits, strict=True))
    np.testing.assert_allclose(softmax(found.logits), mean, atol=1e-6)
    wrong = int((mean.argmax(axis=1) != targets.numpy()).sum())
    assert found.metrics.errors == wrong
    loss = -np.log(mean[np.arange(len(targets)), targets.numpy()]).mean()
    assert abs(found.metrics.loss - loss) < 1e-5


def test_its_entry_counts_members_and_agreement() -> None:
    targets = DATA.test.targets
    members = [evaluation(answers(seed), targets) for seed in range(2)]
    joint = mean_answer(members, DATA)
    student = evaluation(answers(7), targets)
    entry = ensemble_entry(2, joint, student)
    same = (joint.logits.argmax(1) == student.logits.argmax(1)).double().mean()
    assert entry["agreement"] == agreement(student, joint) == 100 * float(same)
    assert entry["members"] == 2
    assert entry["test"] == joint.metrics.as_dict()
