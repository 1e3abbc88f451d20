"""Freed memory is kept: a large tensor made anew touches no new pages."""

import platform
import subprocess
import sys

import pytest

from kdrun.engine.allocator import VARIABLES, keep_freed_memory

FAULTS = """
import resource, sys, torch
from kdrun.engine.allocator import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
torch.set_num_threads(1)
tensor = torch.ones(64 * 2**18)  # 64 MiB, 16,384 pages
for _ in range(16):  # until the heap has been touched once
    tensor + 1
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    tensor + 1
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.heavy
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc takes these settings")
def test_a_tensor_made_anew_touches_no_new_pages() -> None:
    faults = {
        how: int(subprocess.check_output([sys.executable, "-c", FAULTS, how], text=True))
        for how in ("kept", "default")
    }
    assert faults["kept"] < faults["default"] / 20


def test_what_the_user_has_chosen_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLES[0], "131072")
    assert not keep_freed_memory()
