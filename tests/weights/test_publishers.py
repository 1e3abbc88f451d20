"""Weights as other programs publish them answer as the network they came from."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from weights.publishers import (
    CONTAINERS,
    Small,
    legacy,
    other,
    pickled,
    prefixed,
    trained,
    whole_module,
)

from kdrun.config import trust
from kdrun.config.schema import NetworkConfig
from kdrun.errors import CheckpointError, ConfigError
from kdrun.teachers.formats import read_any
from kdrun.types import InputInfo
from kdrun.weights.fit import not_finite
from kdrun.weights.load import WeightsChoice

trust.name(["weights.publishers.Small"])  # for the advice, which builds networks
CONFIG = NetworkConfig("small", "weights.publishers.Small")
INFO = InputInfo(5, 3, (8, 8))
IMAGES = torch.rand(3, 3, 8, 8)


def load(
    path: Path, network: nn.Module | None = None, **choice: Any
) -> tuple[nn.Module, list[str]]:
    network = Small() if network is None else network
    notes = read_any(path).load_into(network, CONFIG, INFO, WeightsChoice(**choice))
    return network.eval(), notes


def same(network: nn.Module, reference: nn.Module) -> bool:
    with torch.no_grad():
        return torch.equal(network(IMAGES), reference(IMAGES))


@pytest.mark.parametrize("name", CONTAINERS)
@pytest.mark.parametrize("old", [False, True], ids=["zip", "legacy"])
def test_it_answers_as_the_original(tmp_path: Path, name: str, old: bool) -> None:
    content = CONTAINERS[name](trained().state_dict())
    path = tmp_path / "teacher.ckpt"
    path.write_bytes(legacy(content)) if old else torch.save(content, path)
    network, _ = load(path)
    assert same(network, trained())


@pytest.mark.parametrize("old", [False, True], ids=["zip", "legacy"])
def test_a_whole_pickled_module_gives_its_tensors(tmp_path: Path, old: bool) -> None:
    network = nn.DataParallel(trained())
    path = tmp_path / "model.pt"
    path.write_bytes(legacy(network) if old else whole_module(network))
    found, notes = load(path)
    assert same(found, trained())
    assert any(
        "no code was run" in note and "weights.publishers.Small" in note for note in notes
    ), notes


def test_plain_pickles_of_tensors_and_of_arrays(tmp_path: Path) -> None:
    state = trained().state_dict()
    (tmp_path / "a.pkl").write_bytes(pickled({"model": state}))
    arrays = {name: tensor.numpy() for name, tensor in state.items()}
    arrays["fc.weight"] = arrays["fc.weight"].T.copy().T  # in column-major order
    (tmp_path / "b.pkl").write_bytes(pickled({"model": arrays, "__author__": "x"}))
    for name in ("a.pkl", "b.pkl"):
        assert same(load(tmp_path / name)[0], trained())


def test_a_script_module_gives_its_tensors(tmp_path: Path) -> None:
    torch.jit.trace(trained(), IMAGES).save(str(tmp_path / "m.pt"))
    assert same(load(tmp_path / "m.pt")[0], trained())


def test_safetensors_alone_in_shards_and_in_a_folder_of_the_hub(tmp_path: Path) -> None:
    state = {name: t.contiguous() for name, t in trained().state_dict().items()}
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "config.json").write_text('{"architecture": "small"}')
    save_file(state, tmp_path / "hub" / "model.safetensors")
    assert same(load(tmp_path / "hub")[0], trained())
    assert same(load(tmp_path / "hub" / "model.safetensors")[0], trained())
    names = list(state)
    shards = {"model-1.safetensors": names[:4], "model-2.safetensors": names[4:]}
    (tmp_path / "shards").mkdir()
    for shard, held in shards.items():
        save_file({name: state[name] for name in held}, tmp_path / "shards" / shard)
    index = {"metadata": {}, "weight_map": {n: s for s, held in shards.items() for n in held}}
    (tmp_path / "shards" / "model.safetensors.index.json").write_text(json.dumps(index))
    assert same(load(tmp_path / "shards")[0], trained())
    (tmp_path / "shards" / "model-2.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"lists model-2.safetensors, which does not exist"):
        load(tmp_path / "shards")


def test_safetensors_under_another_name(tmp_path: Path) -> None:
    save_file(trained().state_dict(), tmp_path / "pytorch_model.bin")
    assert same(load(tmp_path)[0], trained())


def test_the_set_that_was_used_is_named_and_another_can_be_chosen(tmp_path: Path) -> None:
    torch.save(CONTAINERS["torchvision"](trained().state_dict()), tmp_path / "a.pth")
    network, notes = load(tmp_path / "a.pth")
    assert same(network, trained())
    assert "2 sets of weights that fit: 'model' is used" in notes[0]
    assert "teacher.checkpoint_key=model_ema.module" in notes[0]
    for key in ("model_ema", "model_ema.module"):
        network, _ = load(tmp_path / "a.pth", key=key)
        assert not network.fc.weight.any()  # the averaged ones are zero here
    with pytest.raises(CheckpointError, match=r"Did you mean 'model_ema'.*model \(9 tensors\)"):
        load(tmp_path / "a.pth", key="model_em")


@pytest.mark.parametrize(
    "name",
    ["init", "model_init", "initial_state", "grads", "momentum", "momentum_buffer", "exp_avg",
     "optim.exp_avg_sq", "mask", "fisher"],
)  # fmt: skip
@pytest.mark.parametrize("model", ["a.b.model", "model.module", "state_dict_ema"])
def test_sets_of_other_things_than_trained_weights_are_not_chosen(
    tmp_path: Path, name: str, model: str
) -> None:
    state = trained().state_dict()
    wrapped = {key.replace("stem.", "stem.module."): value for key, value in state.items()}
    for content in (state, wrapped):
        sets = {**prefixed(f"{name}.", other(state)), **prefixed(f"{model}.", content)}
        torch.save(sets, tmp_path / "a.pth")
        assert same(load(tmp_path / "a.pth")[0], trained())
    torch.save({name: state}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=rf"called '{name}'.*checkpoint_key={name} takes it"):
        load(tmp_path / "a.pth")
    assert same(load(tmp_path / "a.pth", key=name)[0], trained())


@pytest.mark.parametrize(
    ("first", "second"),
    [("model_s", "model_t"), ("module.s_net", "module.t_net"), ("old", "new"),
     ("pretrained_model", "state.model"), ("prev", "model"), ("student_best", "t")],
)  # fmt: skip
def test_the_teachers_and_the_latest_weights_come_first(
    tmp_path: Path, first: str, second: str
) -> None:
    state = trained().state_dict()
    sets = {**prefixed(f"{first}.", other(state)), **prefixed(f"{second}.", state)}
    torch.save(sets, tmp_path / "a.pth")
    assert same(load(tmp_path / "a.pth")[0], trained())
    torch.save({first: state}, tmp_path / "a.pth")
    assert same(load(tmp_path / "a.pth")[0], trained())


def test_a_momentum_encoder_holds_averaged_weights(tmp_path: Path) -> None:
    torch.save(prefixed("momentum_encoder.", trained().state_dict()), tmp_path / "a.pth")
    assert same(load(tmp_path / "a.pth")[0], trained())


def test_a_student_prefers_the_set_of_its_own_name(tmp_path: Path) -> None:
    state = trained().state_dict()
    content = {**prefixed("student.", state), **prefixed("teacher.", other(state))}
    torch.save({"state_dict": content}, tmp_path / "a.ckpt")
    assert same(load(tmp_path / "a.ckpt", setting="student")[0], trained())
    assert not load(tmp_path / "a.ckpt", setting="teacher")[0].fc.weight.any()


def test_one_of_a_list_of_networks(tmp_path: Path) -> None:
    torch.save([other(trained().state_dict()), trained().state_dict()], tmp_path / "a.pth")
    assert same(load(tmp_path / "a.pth", key="1")[0], trained())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_converted_and_counted(tmp_path: Path, dtype: torch.dtype) -> None:
    state = {
        k: v.to(dtype) if v.is_floating_point() else v for k, v in trained().state_dict().items()
    }
    torch.save(state, tmp_path / "a.pth")
    network, notes = load(tmp_path / "a.pth")
    assert network.fc.weight.dtype == torch.float32
    assert torch.equal(network.fc.weight, state["fc.weight"].float())
    assert notes == [f"8 tensors converted from {str(dtype)[6:]} to float32"]


def test_absent_counters_start_at_zero(tmp_path: Path) -> None:
    state = {k: v for k, v in trained().state_dict().items() if "num_batches" not in k}
    torch.save(state, tmp_path / "a.pth")
    network = Small()
    network.stem[1].num_batches_tracked.fill_(9)
    network, notes = load(tmp_path / "a.pth", network)
    assert same(network, trained())
    assert int(network.stem[1].num_batches_tracked) == 0
    assert notes == ["the file has no num_batches_tracked: set to 0 in 1 layers"]


def test_tensors_that_are_views_or_quantised(tmp_path: Path) -> None:
    state = trained().state_dict()
    state["fc.weight"] = state["fc.weight"].T.contiguous().T
    state["stem.0.weight"] = torch.cat([state["stem.0.weight"]] * 2)[4:]
    torch.save(state, tmp_path / "a.pth")
    assert same(load(tmp_path / "a.pth")[0], trained())
    quantised = torch.quantize_per_tensor(trained().fc.weight.detach(), 0.01, 3, torch.quint8)
    torch.save({**trained().state_dict(), "fc.weight": quantised}, tmp_path / "q.pth")
    assert torch.equal(load(tmp_path / "q.pth")[0].fc.weight, quantised.dequantize())
    rows = torch.quantize_per_channel(
        trained().fc.weight.detach(), torch.full((5,), 0.02), torch.arange(5), 0, torch.qint8
    )
    torch.save({**trained().state_dict(), "fc.weight": rows}, tmp_path / "c.pth")
    assert torch.allclose(load(tmp_path / "c.pth")[0].fc.weight, rows.dequantize())


def test_tensors_that_are_negated_views(tmp_path: Path) -> None:
    expected = trained()
    state = expected.state_dict()
    state["fc.weight"] = torch._neg_view(-state["fc.weight"])
    assert state["fc.weight"].is_neg()
    for old in (False, True):
        torch.save(state, tmp_path / "n.pth", _use_new_zipfile_serialization=not old)
        assert same(load(tmp_path / "n.pth")[0], expected)
    parameter = nn.Parameter(state["fc.weight"])
    torch.save({**state, "fc.weight": parameter}, tmp_path / "p.pth")
    assert same(load(tmp_path / "p.pth")[0], expected)


def test_tied_weights_may_lie_once_in_the_file(tmp_path: Path) -> None:
    class Tied(Small):
        def __init__(self) -> None:
            super().__init__()
            self.again = self.fc

    state = trained().state_dict()
    torch.save(state, tmp_path / "a.pth")
    network, _ = load(tmp_path / "a.pth", Tied())
    assert same(network, trained())


def test_a_network_that_wraps_the_one_of_the_file(tmp_path: Path) -> None:
    class Wrapper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = Small()

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.net(images)

    torch.save({"state_dict": prefixed("module.", trained().state_dict())}, tmp_path / "a.pth")
    network, _ = load(tmp_path / "a.pth", Wrapper())
    assert same(network, trained())


def test_what_is_left_over_is_counted_and_constants_are_shown(tmp_path: Path) -> None:
    state = {
        **trained().state_dict(),
        "mean": torch.tensor([0.5, 0.25, 0.125]).reshape(1, 3, 1, 1),
        "std": torch.ones(1, 3, 1, 1),
        "aux_head.weight": torch.ones(5, 4),
    }
    torch.save({"model": state, "optimizer": {"x": torch.ones(2)}}, tmp_path / "a.pth")
    network, notes = load(tmp_path / "a.pth")
    assert same(network, trained())
    assert "weights read under 'model'" in notes
    assert any("mean=[0.5,0.25,0.125] and std=[1,1,1]" in note for note in notes), notes
    assert any(note.startswith("3 tensors outside of the network not used: ") for note in notes), (
        notes
    )
    assert any(
        note.startswith("1 tensor elsewhere in the file not used: optimizer") for note in notes
    ), notes


def test_modules_are_renamed_and_left_out(tmp_path: Path) -> None:
    state = {k.replace("fc.", "linear."): v for k, v in trained().state_dict().items()}
    state["stem.projector.weight"] = torch.ones(3, 3)
    torch.save({"net": prefixed("module.", state)}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"fc.weight \[5, 4\].*linear.weight \[5, 4\]"):
        load(tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"unknown to the network \(stem.projector.weight"):
        load(tmp_path / "a.pth", rename={"linear": "fc"})
    rename = {"linear": "fc", "projector": None}
    network, notes = load(tmp_path / "a.pth", rename=rename)
    assert same(network, trained())
    assert any(note.startswith("1 tensors left out by rename") for note in notes), notes
    with pytest.raises(ConfigError, match=r"rename: no tensor .* 'liner'.* Did you mean 'linear'"):
        load(tmp_path / "a.pth", rename={"liner": "fc"})


def test_names_can_be_swapped(tmp_path: Path) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(5, 5), nn.Linear(5, 5)

    first, second = Two(), Two()
    torch.save(first.state_dict(), tmp_path / "a.pth")
    load(tmp_path / "a.pth", second, rename={"a": "b", "b": "a"})
    assert torch.equal(second.a.weight, first.b.weight)
    assert torch.equal(second.b.weight, first.a.weight)


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    state = trained().state_dict()
    state["fc.weight"][0, 0] = torch.nan
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"fc.weight has 1 numbers that are NaN"):
        load(tmp_path / "a.pth")


def test_a_new_classifier(tmp_path: Path) -> None:
    torch.save(trained(num_classes=7).state_dict(), tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"student.new_classifier=true"):
        load(tmp_path / "a.pth", setting="student")
    network = Small()
    fresh = network.fc.weight.clone()
    network, notes = load(tmp_path / "a.pth", network, setting="student", new_classifier=True)
    assert torch.equal(network.fc.weight, fresh)
    assert torch.equal(network.stem[0].weight, trained().stem[0].weight)
    assert any("the classifier (fc" in note for note in notes), notes


def test_eight_bit_floats_are_looked_at() -> None:
    values = torch.tensor([1.0, float("nan")]).to(torch.float8_e4m3fn)
    assert not_finite(values) == 1
