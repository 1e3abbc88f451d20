"""Which tap of the student meets which of the teacher."""

import pytest

from kdrun.errors import ConfigError
from kdrun.models.features.pairs import pair_taps
from kdrun.models.features.taps import TapPaths

THREE = TapPaths(
    {
        "stem": "relu",
        **{f"stage{i}": f"layer{i}" for i in (1, 2, 3)},
        **{f"stage{i}_pre": f"layer{i}.0.relu2:in" for i in (1, 2, 3)},
        "embedding": "fc:in",
    },
    ["relu", "layer1", "layer1.0", "layer1.0.conv1", "layer2", "layer3", "fc"],
)
FOUR = TapPaths(
    {**{f"stage{i}": f"relus.{i}" for i in (1, 2, 3, 4)}, "embedding": "classifier:in"},
    ["relus.1", "relus.2", "relus.3", "relus.4", "classifier"],
)
TWELVE = TapPaths({f"stage{i}": f"blocks.{i}" for i in range(12, 0, -1)})


def test_all_stages() -> None:
    assert pair_taps(["stages"], THREE, THREE) == [(f"stage{i}",) * 2 for i in (1, 2, 3)]
    assert pair_taps(["stages_pre"], THREE, THREE) == [(f"stage{i}_pre",) * 2 for i in (1, 2, 3)]


def test_unequal_numbers_are_aligned_from_the_end() -> None:
    expected = [("stage1", "stage2"), ("stage2", "stage3"), ("stage3", "stage4")]
    assert pair_taps(["stages"], THREE, FOUR) == expected
    assert pair_taps(["stages"], FOUR, THREE) == [(t, s) for s, t in expected]


def test_stages_go_by_number() -> None:
    assert pair_taps(["stages"], FOUR, TWELVE)[0] == ("stage1", "stage9")
    assert pair_taps(["last_stage"], TWELVE, FOUR) == [("stage12", "stage4")]


def test_places() -> None:
    assert pair_taps(["last_stage"], THREE, FOUR) == [("stage3", "stage4")]
    assert pair_taps(["first_stage"], THREE, FOUR) == [("stage1", "stage1")]
    assert pair_taps(["last_stage_pre"], THREE, THREE) == [("stage3_pre", "stage3_pre")]
    assert pair_taps("last_stage", THREE, FOUR) == [("stage3", "stage4")]


def test_names_paths_and_explicit_pairs() -> None:
    assert pair_taps(["embedding"], THREE, FOUR) == [("embedding", "embedding")]
    assert pair_taps(["layer1.0.conv1"], THREE, THREE) == [("layer1.0.conv1",) * 2]
    assert pair_taps([["layer1.0:in", "last_stage"], ["stem", "stage2"]], THREE, FOUR) == [
        ("layer1.0:in", "stage4"),
        ("stem", "stage2"),
    ]
    assert pair_taps([["stages", "stages"]], THREE, FOUR)[-1] == ("stage3", "stage4")


def test_each_pair_once() -> None:
    pairs = pair_taps(["last_stage", "stages", ["stage3", "stage3"]], THREE, THREE)
    assert pairs == [("stage3", "stage3"), ("stage1", "stage1"), ("stage2", "stage2")]


@pytest.mark.parametrize(
    ("requested", "fragments"),
    [
        (["stage4"], ["The student has no tap 'stage4'", "stage1, stage2, stage3", "Did you mean"]),
        (["stem"], ["The teacher has no tap 'stem'", "stage4, embedding", "relus.1"]),
        (["stages_pre"], ["The teacher has no tap 'stages_pre'", "stage1, stage2"]),
        ([["stage1", "layer1"]], ["The teacher has no tap 'layer1'"]),
        ([["stages", "stage1"]], ["several taps with one"]),
        ([["stage1", "stage2", "stage3"]], ["one name, or [student tap, teacher tap]"]),
    ],
)
def test_mistakes_name_what_there_is(
    requested: list[str | list[str]], fragments: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        pair_taps(requested, THREE, FOUR)
    for fragment in fragments:
        assert fragment in str(caught.value)


def test_crossed_stages_are_all_pairs() -> None:
    pairs = pair_taps(["stages_crossed"], THREE, FOUR)
    assert len(pairs) == 12
    assert pairs[:2] == [("stage1", "stage1"), ("stage1", "stage2")]
    assert pairs[-1] == ("stage3", "stage4")
    assert pair_taps(["stages_crossed_pre"], THREE, THREE)[1] == ("stage1_pre", "stage2_pre")
