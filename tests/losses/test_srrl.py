"""Softmax regression representation learning."""

from collections import OrderedDict

import pytest
import torch
from losses.cases import Case, make_case
from losses.map_cases import assert_same, exact_case, run_by_hand, total
from torch import Tensor, nn

from kdrun.errors import ConfigError
from kdrun.losses.base import LossContext, NetworkView
from kdrun.losses.srrl import SoftmaxRegression
from kdrun.types import Outputs


def by_hand(case: Case) -> Tensor:
    term = case.term
    source = case.student.embedding
    if term.variant == "map":
        source = case.student.features[term.pairs[0][0]]
    source = source.reshape(*source.shape, *[1] * (4 - source.dim()))
    adapted = run_by_hand(term.connector, source)
    (classifier,) = term._classifier
    weight, bias = classifier.weight.detach().double(), classifier.bias.detach().double()
    features, logits = [], []
    for n in range(len(adapted)):
        h = torch.stack([channel.sum() / channel.numel() for channel in adapted[n]])
        features += [(h[d] - case.teacher.embedding[n, d]) ** 2 for d in range(len(h))]
        for c in range(len(weight)):
            logits.append(((h * weight[c]).sum() + bias[c] - case.teacher.logits[n, c]) ** 2)
    parts = [
        term.feature * total(features) / len(features),
        term.regression * total(logits) / len(logits),
    ]
    return total(parts)


@pytest.mark.parametrize("pair", ["cnn", "mobilenet", "mlp"])
@pytest.mark.parametrize("settings", [{}, {"variant": "map"}, {"feature": 2.0, "regression": 0.5}])
def test_agrees_with_loops(pair: str, settings: dict[str, object]) -> None:
    case = exact_case("srrl", pair, **settings)
    assert_same(case, lambda: by_hand(case))


def test_a_relu_ends_the_connector_only_where_the_teacher_has_one() -> None:
    assert isinstance(make_case("srrl").term.connector[-1], nn.ReLU)
    network = nn.Sequential(OrderedDict(body=nn.Flatten(), fc=nn.Linear(4, 3)))
    outputs = Outputs(torch.zeros(2, 3), embedding=torch.tensor([[1.0, -1.0, 2.0, 0.5]] * 2))
    outputs.logits = network.fc(outputs.embedding).detach()
    term = SoftmaxRegression()
    term.build(outputs, outputs, context_of(network))
    assert not isinstance(term.connector[-1], nn.ReLU)


def context_of(network: nn.Module) -> LossContext:
    view = NetworkView(network, {"embedding": "fc:in"})
    return LossContext(3, 10, torch.zeros(10).long(), 2, 0, view, view)


def test_the_classifier_is_the_teachers_and_not_the_terms() -> None:
    case = make_case("srrl")
    names = [name for name, _ in case.term.named_parameters()]
    assert names
    assert all(name.startswith("connector") for name in names)
    (classifier,) = case.term._classifier
    case.loss().backward()
    assert all(p.grad is None for p in classifier.parameters())


def test_golden() -> None:
    for variant, expected in GOLDEN.items():
        found = make_case("srrl", "mobilenet", variant=variant).loss()
        assert found.item() == pytest.approx(expected, rel=1e-5)


GOLDEN = {"embedding": 13.581562, "map": 11.056104}


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="variant=maps does not exist"):
        SoftmaxRegression(variant="maps")
    network = nn.Sequential(OrderedDict(body=nn.Flatten(), fc=nn.Linear(4, 3)))
    outputs = Outputs(torch.ones(2, 3), embedding=torch.ones(2, 4))  # not what fc makes of it
    with pytest.raises(ConfigError, match="one linear layer of its embedding"):
        SoftmaxRegression().build(outputs, outputs, context_of(network))
