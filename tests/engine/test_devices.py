"""Choosing a device and a precision."""

import pytest
import torch

from kdrun.engine import devices
from kdrun.engine.diagnostics import no_deterministic_kernel
from kdrun.errors import ConfigError


def test_auto_takes_the_first_there_is() -> None:
    assert str(devices.pick_device("auto")) == devices.available_devices()[0]


def test_cpu_is_always_there() -> None:
    assert devices.pick_device("cpu").type == "cpu"
    assert devices.available_devices()[-1] == "cpu"


def test_an_unknown_device_is_answered_with_what_there_is() -> None:
    with pytest.raises(ConfigError, match=r"cuda:99 is not on this machine.*device=cpu|It has"):
        devices.pick_device("cuda:99")


def test_fp16_on_a_processor_is_refused() -> None:
    with pytest.raises(ConfigError, match="bf16"):
        devices.check_precision("fp16", torch.device("cpu"))


def test_autocast_changes_the_type_of_products() -> None:
    cpu, matrix = torch.device("cpu"), torch.ones(2, 2)
    with devices.autocast(cpu, "bf16"):
        assert (matrix @ matrix).dtype == torch.bfloat16
    with devices.autocast(cpu, "fp32"):
        assert (matrix @ matrix).dtype == torch.float32


def test_deterministic_kernels_are_required_inside_the_block_only() -> None:
    assert not torch.are_deterministic_algorithms_enabled()
    with devices.deterministic_kernels(True):
        assert torch.are_deterministic_algorithms_enabled()
        with devices.deterministic_kernels(False):  # leaves the setting alone
            assert torch.are_deterministic_algorithms_enabled()
    assert not torch.are_deterministic_algorithms_enabled()


def test_an_operation_without_a_deterministic_kernel_is_named() -> None:
    error = RuntimeError("put_ does not have a deterministic implementation, but you set ...")
    told = no_deterministic_kernel(error, torch.device("cuda:0"))
    assert "put_ has no deterministic kernel on cuda:0" in str(told)
    assert "deterministic=false" in str(told)


@pytest.mark.gpu
def test_a_gpu_is_found_by_name() -> None:
    assert devices.pick_device("cuda").type == "cuda"
    assert devices.describe_device(torch.device("cuda:0"))
