"""Submitting through Ray's Jobs API: the head of the study runs on the cluster, and this process is free at once.

The job is one command, `seedbed resume STUDY --store … --address auto`: all that it needs lies in the store. It takes
its credentials from the environment of the node it runs on. Neither the command nor the job's runtime_env holds a
secret, for both are shown by the dashboard and by `ps`.
"""

import os
import secrets
import shlex
from typing import Any

from jobs.errors import ClusterError
from orchestrator.clusters.ray_start import check_mode, check_version, find_token, lets_everyone_in


def entrypoint(study: str, store_url: str, stops_seen: int) -> str:
    """Return the command that a job runs."""
    # Ray gives it to a shell.
    words = ["seedbed", "resume", study, "--store", store_url, "--address", "auto", "--stops-seen", str(stops_seen)]
    return shlex.join([*words, "--no-report", "--json"])


def submit_job(address: str, study: str, store_url: str, stops_seen: int, *, insecure: bool) -> str:
    """Start the study's head on the cluster whose dashboard is at `address`; returns the id of Ray's job.

    Raises ClusterError where the address does not answer, lets everyone in, is too old, or refuses the job.
    """
    check_mode(insecure=insecure)
    if lets_everyone_in(address) and not insecure:
        raise ClusterError(
            f"the Jobs API at {address} answers without a token, so everyone who reaches it runs code there. Start the "
            "head with RAY_AUTH_MODE=token, or give --insecure"
        )
    if not insecure and find_token() is None:
        raise ClusterError("no token for Ray: give RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH in the environment")
    try:
        client = _client(address)
        check_version(_ray_version(client), f"the Ray at {address}", insecure=insecure)
        return str(
            client.submit_job(
                entrypoint=entrypoint(study, store_url, stops_seen),
                submission_id=f"seedbed-{study}-{secrets.token_hex(4)}",
                metadata={"study": study, "store": store_url},
            )
        )
    except (RuntimeError, ConnectionError, ValueError, OSError) as error:
        raise ClusterError(f"{address} refuses the job: {str(error).strip().partition(chr(10))[0]}") from error


def _client(address: str) -> Any:
    try:
        from ray.job_submission import JobSubmissionClient
    except ImportError as error:
        raise ClusterError(f"the Jobs API needs more of Ray: pip install 'seedbed[cluster]' ({error})") from error
    # Left set, this address of a running Ray would be preferred to the one that is given.
    os.environ.pop("RAY_ADDRESS", None)
    return JobSubmissionClient(address)


def _ray_version(client: Any) -> str:
    answer = client._do_request("GET", "/api/version")  # noqa: SLF001
    return str(answer.json().get("ray_version", "")) if answer.status_code == 200 else ""
