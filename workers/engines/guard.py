"""`python -I -S guard.py FOLDER PROGRAM ARGUMENT…`: between a pack and its script, so that no script outlives it.

The pack holds the other end of this process's input: `T` asks the script's process group to leave, `K` kills it. When
the input closes, the pack has ended, of whatever: the group is killed, and FOLDER is removed in the pack's place. The
guard ends with the script's code, 128 + n after signal n, 127 where the program cannot be started.
"""

import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys

LEAVE, KILL = b"T", b"K"
NOT_STARTED = 127
SIGNALLED = 128  # and the number of the signal
_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Start the script, hear what the pack says, and return how the script ended."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):  # they mean the pack, which tells this process
        signal.signal(number, signal.SIG_IGN)
    told, teller = os.pipe()
    os.set_blocking(teller, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(teller)
    folder, command = sys.argv[1], sys.argv[2:]
    try:
        # A group of its own, which is killed as a whole.
        script = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_as_ever)
    except (OSError, subprocess.SubprocessError) as error:
        sys.stderr.write(f"{command[0]} cannot be started: {error}\n")
        return NOT_STARTED
    while script.poll() is None:
        ready, _, _ = select.select([sys.stdin.fileno(), told], [], [], 1.0)
        if told in ready:
            os.read(told, 512)
        if sys.stdin.fileno() in ready:
            order = os.read(sys.stdin.fileno(), 1)
            _signal(script.pid, signal.SIGTERM if order == LEAVE else signal.SIGKILL)
            if not order:
                script.wait()
                shutil.rmtree(folder, ignore_errors=True)
    code = script.wait()
    _signal(script.pid, signal.SIGKILL)  # what the script left behind in its group
    return exit_code(code)


def exit_code(code: int) -> int:
    """Return an exit code as a shell tells it: 128 + n after signal n."""
    return code if code >= 0 else SIGNALLED - code


def _as_ever() -> None:
    """Give the script the signals that any process begins with, and on Linux let it die with this process."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _signal(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):  # it has ended; macOS says the second for a group of zombies
        return


if __name__ == "__main__":
    raise SystemExit(main())
