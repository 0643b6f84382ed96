"""The Slurm script as bash runs it: a signal makes the driver save, and only then goes the job back into the queue."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "infra" / "slurm" / "seedbed.sbatch"
# What stands for the programs of a cluster; each writes what it was asked into the log.
PROGRAMS = {
    "scontrol": 'if [ "$1" = show ]; then printf "n1\\nn2\\n"; else echo "scontrol $*" >>"$LOG"; fi',
    "srun": 'while [ "${1#-}" != "$1" ]; do if [ "$1" = -w ]; then shift; fi; shift; done; exec "$@"',
    "hostname": "echo 127.0.0.1 10.0.0.1",
    "ray": 'if [ "$1" = start ]; then echo "ray $$ $*" >>"$LOG"; exec sleep 60; fi',
    "seedbed": """\
echo "seedbed $* at $RAY_ADDRESS, token of $(wc -c <"$RAY_AUTH_TOKEN_PATH")" >>"$LOG"
trap 'sleep 0.3; echo saved >>"$LOG"; exit 5' TERM
[ -z "${ENDS_WITH:-}" ] || exit "$ENDS_WITH"
while true; do sleep 0.05; done""",
}
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Return a function that starts the script among those programs."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in PROGRAMS.items():
        (programs / name).write_text(f"#!/bin/bash\n{text}\n", encoding="ascii")
        (programs / name).chmod(0o700)

    def run(**environment: str) -> subprocess.Popen[str]:
        known = {"PATH": f"{programs}:{os.environ['PATH']}", "LOG": str(tmp_path / "log")}
        known |= {"SLURM_JOB_ID": "4711", "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_CPUS_PER_TASK": "8"}
        command = ["bash", str(SCRIPT), "tiny", "results"]
        return subprocess.Popen(
            command, cwd=tmp_path, env=known | environment, text=True, stderr=subprocess.PIPE, stdout=subprocess.PIPE
        )

    return run


def lines(folder: Path) -> list[str]:
    log = folder / "log"
    return log.read_text(encoding="ascii").splitlines() if log.exists() else []


def wait_for_driver(folder: Path) -> None:
    """Wait until the driver, and the Ray of the second node, were started; the test's own timeout is the limit."""
    while sum(line.startswith(("seedbed", "ray")) for line in lines(folder)) < 3:
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").split(") ")[1][0] != "Z"
    except OSError:
        return False


@pytest.mark.timeout(60)
@pytest.mark.parametrize("sent", [signal.SIGUSR2, signal.SIGTERM])
def test_a_preempted_job_saves_first_and_then_goes_back_into_the_queue(
    start: Start, tmp_path: Path, sent: signal.Signals
) -> None:
    script = start()
    wait_for_driver(tmp_path)
    script.send_signal(sent)
    _, said = script.communicate()
    assert script.returncode == 5, f"the job's end is the driver's: {said}"
    told = lines(tmp_path)
    assert told[-2:] == ["saved", "scontrol requeue 4711"]
    assert not [pid for pid in (int(line.split()[1]) for line in told if line.startswith("ray")) if is_alive(pid)]
    assert not list(tmp_path.glob(".seedbed-*")), "the token is gone with the job"


@pytest.mark.timeout(60)
def test_a_second_signal_does_not_cut_the_saving_short(start: Start, tmp_path: Path) -> None:
    script = start()
    wait_for_driver(tmp_path)
    for sent in (signal.SIGUSR2, signal.SIGUSR2, signal.SIGTERM):
        script.send_signal(sent)
        time.sleep(0.05)
    script.communicate()
    assert lines(tmp_path)[-2:] == ["saved", "scontrol requeue 4711"]
    assert lines(tmp_path).count("scontrol requeue 4711") == 1


@pytest.mark.timeout(60)
@pytest.mark.parametrize("status", [0, 1])
def test_a_job_that_ends_by_itself_stays_ended(start: Start, tmp_path: Path, status: int) -> None:
    script = start(ENDS_WITH=str(status))
    script.communicate()
    assert script.returncode == status
    told = lines(tmp_path)
    assert not [line for line in told if line.startswith("scontrol")]
    driver = next(line for line in told if line.startswith("seedbed"))
    assert "resume tiny --store results --address 127.0.0.1:24711" in driver
    assert driver.endswith("token of 64")
