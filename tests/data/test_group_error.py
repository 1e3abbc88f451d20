"""Groups of images classified as a whole."""

import math

import torch

from kdrun.data.groups import GroupError


def test_a_group_is_answered_by_the_sum_of_its_log_posteriors() -> None:
    generator = torch.Generator().manual_seed(3)
    logits = 2 * torch.randn(60, 4, generator=generator)
    index = torch.randint(9, (60,), generator=generator) * 5  # numbers with gaps, in no order
    targets = (index // 5) % 4
    wrong = 0
    for name in index.unique().tolist():
        members = [row for row in range(60) if index[row] == name]
        scores = [
            sum(math.log(float(logits[row].double().softmax(0)[c])) for row in members)
            for c in range(4)
        ]
        wrong += scores.index(max(scores)) != name // 5 % 4
    found = GroupError("word", index).measure(logits, targets)
    assert (found["words"], found["errors"]) == (len(index.unique()), wrong)
    assert 0 < wrong < found["words"]
    assert set(found) == {"words", "errors", "word_error_percent"}
    assert found["word_error_percent"] == 100 * wrong / found["words"]


def test_one_sure_image_outweighs_two_unsure_ones() -> None:
    logits = torch.tensor([[0.0, 5.0], [1.0, 0.0], [1.0, 0.0]])
    found = GroupError("word", torch.zeros(3)).measure(logits, torch.ones(3, dtype=torch.long))
    assert found["errors"] == 0


def test_selected_images_keep_their_groups() -> None:
    metric = GroupError("word", torch.tensor([7, 7, 3, 3])).select(torch.tensor([1, 2]))
    assert (metric.name, metric.index.tolist()) == ("words", [7, 3])
