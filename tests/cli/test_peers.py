"""Networks named in `scheme.peers`, and settings that a scheme without a teacher does not read."""

from collections.abc import Callable
from pathlib import Path

import pytest
from cli.conftest import Recorder

from kdrun.cli.main import run

Typed = Callable[..., str]


def peers(stages: Recorder, *words: str) -> list[tuple[str, dict[str, object]]]:
    assert run(["distill", *words]) == 0
    (_, config, *_) = stages.calls[-1]
    return [(peer.name, peer.kwargs) for peer in config.scheme.peers]


def test_names_stand_for_networks(stages: Recorder) -> None:
    like_student = ("cnn_tiny", {"widths": [4, 8]})
    resnet = {"depth": 20, "widths": [16, 16, 32, 64]}
    assert peers(stages, "scheme=online") == [like_student]
    assert peers(stages, "scheme=online", "scheme.peers=[resnet20,student]") == [
        ("resnet20", resnet),
        like_student,
    ]
    changed = "scheme.peers=[{name: resnet20, depth: 26}]"
    assert peers(stages, "scheme=online", changed) == [("resnet20", {**resnet, "depth": 26})]
    own = ["scheme=online", "scheme.peers=[{_target_: my.Net, width: 3}]"]
    assert peers(stages, *own) == [("Net", {"width": 3})]


def test_a_users_own_network_is_a_peer(stages: Recorder, my_configs: Path) -> None:
    words = ["--config-dir", str(my_configs), "scheme=online", "scheme.peers=[mine]"]
    assert [kwargs for _, kwargs in peers(stages, *words)] == [{"widths": [2]}]


def test_the_papers_recipe_comes_with_the_scheme(stages: Recorder) -> None:
    assert run(["distill", "scheme=online"]) == 0
    config = stages.calls[-1][1]
    assert (config.ce, config.loss["kd"].weight) == (1.0, 1.0)
    assert (config.teachers, config.labels_only) == ((), False)
    assert run(["distill", "scheme=online", "loss=[kd,sp]", "ce=0.5", "T=3"]) == 0
    config = stages.calls[-1][1]
    assert (list(config.loss), config.ce, config.T) == (["kd", "sp"], 0.5, 3.0)
    assert run(["distill", "scheme=online", "loss=sp"]) == 0
    assert list(stages.calls[-1][1].loss) == ["sp"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["scheme.peers=[resnet2]"], "there is no network 'resnet2'. Did you mean"),
        (["scheme.peers=[]"], "must be a list of networks"),
        (["scheme.peers=resnet20"], "must be a list of networks"),
        (["scheme.peers=[{name: resnet20, dept: 3}]"], "Did you mean 'depth'?"),
        (["scheme.peers=[{name: student, depth: 3}]"], "name the one it is made of"),
        (["scheme.peers=[3]"], "there is no network '3'"),
        (["teacher=resnet20"], "'teacher=resnet20' would change nothing"),
        (["teacher.seed=3"], "would change nothing"),
        (["schedule@teacher.schedule=adam"], "would change nothing"),
        (["loss=sp", "loss.kd.weight=2"], "kd is not in the objective"),
    ],
)
def test_mistakes(refused: Typed, words: list[str], said: str) -> None:
    assert said in refused("distill", "scheme=online", *words)
