"""What a step frees is kept for the next one, and given back at the end. Each case is a process of its own."""

import subprocess
import sys

import pytest

# Tensors of 8 MiB, below which glibc takes no mapping of its own once it has seen one go; 2,048 pages each.
STEPS = """
import resource, torch
from jobs.memory import resident_bytes
from workers.memory import give_back, keeping_freed_memory

def faults_of_steps():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        made = [torch.ones(2 << 20) for _ in range(8)]
        del made
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults_of_steps()
free = faults_of_steps()
with keeping_freed_memory():
    faults_of_steps()
    kept, during = faults_of_steps(), resident_bytes()
print(free, kept, during - resident_bytes())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_steps_meet_no_new_pages_and_the_end_gives_all_back() -> None:
    said = subprocess.run([sys.executable, "-c", STEPS], check=True, capture_output=True, text=True).stdout
    free, kept, given_back = map(int, said.split())
    assert free > 20 * 2048, "the trap is there: every step met pages anew"
    assert kept < 2048, "fewer than one of 160 tensors"
    assert given_back > 7 * (8 << 20)


def test_an_allocator_that_cannot_be_told_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from workers import memory

    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    with memory.keeping_freed_memory():
        memory.give_back()
