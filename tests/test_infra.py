"""Cluster files: as right as a machine without those clusters can tell."""

import json
import re
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import jsonschema
import pyarrow as pa
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from jobs.pack import PackOutcome, Saves, put_outcome
from jobs.records import ATTEMPTS, AUDIT, CHECKPOINTS, RUNS
from jobs.store import open_store
from orchestrator.head_metrics import METRICS, SavesReader, exposition, metrics_server

INFRA = Path(__file__).parents[1] / "infra"
# What KubeRay's CRD (ray.io/v1) demands, and what we demand of it.
_TEMPLATE = {
    "type": "object",
    "required": ["spec"],
    "properties": {
        "spec": {
            "type": "object",
            "required": ["containers"],
            "properties": {
                "terminationGracePeriodSeconds": {"type": "integer", "minimum": 20},
                "containers": {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "type": "object",
                        "required": ["name", "image", "envFrom", "env", "resources"],
                        "properties": {
                            "env": {
                                "type": "array",
                                "contains": {"const": {"name": "RAY_AUTH_MODE", "value": "token"}},
                            },
                            "resources": {"type": "object", "required": ["limits", "requests"]},
                        },
                    },
                },
            },
        }
    },
}
_GROUP = {
    "type": "object",
    "required": ["rayStartParams", "template"],
    "properties": {
        "rayStartParams": {"type": "object", "additionalProperties": {"type": "string"}},
        "template": _TEMPLATE,
    },
}
_CLUSTER = {
    "type": "object",
    "required": ["rayVersion", "headGroupSpec", "workerGroupSpecs"],
    "additionalProperties": False,
    "properties": {
        "rayVersion": {"type": "string", "pattern": r"^2\.(5[4-9]|[6-9]\d)\.\d+$"},
        "enableInTreeAutoscaling": {"type": "boolean"},
        "autoscalerOptions": {"type": "object"},
        "headGroupSpec": _GROUP,
        "workerGroupSpecs": {
            "type": "array",
            "minItems": 1,
            "items": {
                **_GROUP,
                "required": [*_GROUP["required"], "groupName", "replicas", "minReplicas", "maxReplicas"],
                "properties": _GROUP["properties"]
                | {n: {"type": "integer", "minimum": 0} for n in ("replicas", "minReplicas", "maxReplicas")},
            },
        },
    },
}
SCHEMAS: dict[str, dict[str, Any]] = {
    kind: {
        "type": "object",
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "properties": {"apiVersion": {"const": "ray.io/v1"}, "kind": {"const": kind}, "spec": spec},
    }
    for kind, spec in {
        "RayCluster": _CLUSTER,
        "RayJob": {
            "type": "object",
            "required": ["entrypoint", "rayClusterSpec"],
            "properties": {
                "rayClusterSpec": _CLUSTER,
                "shutdownAfterJobFinishes": {"const": True},
                "backoffLimit": {"type": "integer"},
            },
            "not": {"required": ["runtimeEnvYAML"]},
        },
    }.items()
}


def load(name: str) -> Any:
    return yaml.safe_load((INFRA / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("name", "kind"), [("kuberay/raycluster.yaml", "RayCluster"), ("kuberay/rayjob.yaml", "RayJob")]
)
def test_kuberay_manifests_are_what_the_operator_takes(name: str, kind: str) -> None:
    manifest = load(name)
    jsonschema.validate(manifest, SCHEMAS[kind])
    spec = manifest["spec"] if kind == "RayCluster" else manifest["spec"]["rayClusterSpec"]
    spec["headGroupSpec"]["template"]["spec"]["containers"][0]["env"][0]["value"] = "disabled"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(manifest, SCHEMAS[kind])


def test_the_cluster_has_cpu_gpu_and_spot_workers_and_a_head_without_work() -> None:
    spec = load("kuberay/raycluster.yaml")["spec"]
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    groups = {group["groupName"]: group["template"]["spec"] for group in spec["workerGroupSpecs"]}
    limits = {name: pod["containers"][0]["resources"]["limits"] for name, pod in groups.items()}
    assert [name for name in limits if "nvidia.com/gpu" in limits[name]] == ["gpu", "gpu-spot"]
    assert "nodeSelector" in groups["gpu-spot"]
    assert "nodeSelector" not in groups["gpu"]


def test_there_are_nodes_from_the_start_because_no_pack_waits_where_an_autoscaler_looks() -> None:
    spec = load("kuberay/raycluster.yaml")["spec"]
    assert "enableInTreeAutoscaling" not in spec
    assert max(group["replicas"] for group in spec["workerGroupSpecs"]) > 0
    assert all(g["minReplicas"] <= g["replicas"] <= g["maxReplicas"] for g in spec["workerGroupSpecs"])
    assert max(kind["min_workers"] for kind in load("ray-up/aws.yaml")["available_node_types"].values()) > 0


def test_a_jobs_command_is_one_that_the_command_line_has() -> None:
    from typer.testing import CliRunner

    from orchestrator.cli import app

    words = load("kuberay/rayjob.yaml")["spec"]["entrypoint"].split()
    shown = re.sub(r"\x1b\[[0-9;]*m", "", CliRunner().invoke(app, [words[1], "--help"], env={"COLUMNS": "200"}).output)
    for word in words:
        assert not word.startswith("--") or word in shown


def test_the_slurm_script_is_sound() -> None:
    script = INFRA / "slurm" / "seedbed.sbatch"
    shellcheck = Path(sys.executable).parent / "shellcheck"
    for command in (["bash", "-n", script], [shellcheck, "--severity=style", script]):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    text = script.read_text(encoding="utf-8")
    options = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", text, re.MULTILINE))
    assert options["signal"].startswith("B:USR2@")
    assert "requeue" in options
    assert re.search(r"^trap preempted .*USR2", text, re.MULTILINE)


def test_ray_takes_the_cloud_file() -> None:
    from ray.autoscaler._private.util import fillout_defaults, validate_config

    config = fillout_defaults(load("ray-up/aws.yaml"))
    validate_config(config)
    assert config["available_node_types"]["head"]["resources"]["CPU"] == 0
    config["available_node_types"]["cpu.spot"]["max_wokers"] = 3
    with pytest.raises(jsonschema.ValidationError):
        validate_config(config)


def test_no_file_holds_a_secret_or_turns_authentication_off() -> None:
    for path in INFRA.rglob("*"):
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"(RAY_AUTH_TOKEN|SECRET\w*|ACCESS_KEY_ID)=[\w/+]", text), path
            assert "disabled" not in text, path


def tables() -> dict[str, pa.Table]:
    """Return the tables of three runs, one of them at its second attempt."""
    run = {field.name: "" for field in RUNS if pa.types.is_string(field.type)}
    run |= {field.name: 0 for field in RUNS if not pa.types.is_string(field.type)} | {"mixed_environment": False}
    runs = [
        run | {"run_id": "r1-a", "status": "finished", "last_step": 100, "planned_steps": 100},
        run | {"run_id": "r1-b", "status": "running", "last_step": 40, "planned_steps": 100},
        run | {"run_id": "r1-c", "status": "waiting", "last_step": -1, "planned_steps": 100},
    ]
    attempt = {"first_step": 0, "resumed_pack": "", "environment": ""}
    attempts = [
        attempt | {"run_id": "r1-a", "attempt": 1, "pack_id": "p.1", "status": "finished", "reason": ""},
        attempt
        | {"run_id": "r1-b", "attempt": 1, "pack_id": "p.1", "status": "running", "reason": 'node "x\\y": gone'},
        attempt | {"run_id": "r1-b", "attempt": 2, "pack_id": "p.2", "status": "running", "reason": ""},
    ]
    saved = {"run_id": "r1-a", "attempt": 1, "step": 100, "kind": "milestone", "key": "k", "slot": 0, "sha256": ""}
    rows = {
        "runs": (runs, RUNS),
        "attempts": (attempts, ATTEMPTS),
        "checkpoints": ([saved], CHECKPOINTS),
        "audit": ([], AUDIT),
    }
    return {name: pa.Table.from_pylist(body, schema=schema) for name, (body, schema) in rows.items()}


def test_the_exposition_says_what_the_tables_say_and_any_parser_reads_it() -> None:
    saves = {'w"1': Saves(count=4, seconds=0.5, size_bytes=1 << 20)}
    text = exposition({'w"1': tables(), "empty": {n: t.slice(0, 0) for n, t in tables().items()}}, saves)
    families = {family.name: family for family in text_string_to_metric_families(text)}
    values = {
        (sample.name, *sorted(sample.labels.items())): sample.value for f in families.values() for sample in f.samples
    }
    study = ("study", 'w"1')
    assert values["seedbed_runs", ("status", "finished"), study] == 1
    assert values["seedbed_runs", ("status", "failed"), study] == 0
    assert values["seedbed_run_steps_total", study] == 140
    assert values["seedbed_run_steps_planned", study] == 300
    assert values["seedbed_attempts_total", study] == 3
    assert values["seedbed_retries_total", ("reason", 'node "x\\y"'), study] == 1
    assert values["seedbed_checkpoints_total", ("kind", "milestone"), study] == 1
    assert values["seedbed_checkpoint_files_total", study] == 4
    assert values["seedbed_checkpoint_seconds_total", study] == 0.5
    assert values["seedbed_checkpoint_bytes_total", study] == 1 << 20
    assert values["seedbed_checkpoint_bytes_total", ("study", "empty")] == 0
    assert values["seedbed_run_steps_total", ("study", "empty")] == 0
    assert text == exposition({"empty": {n: t.slice(0, 0) for n, t in tables().items()}, 'w"1': tables()}, saves)


def test_what_checkpoints_take_is_read_from_the_outcomes_of_packs_that_ended(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store", create=True)
    reader = SavesReader(store)
    assert reader.saves(tables()) == Saves()
    put_outcome(store, PackOutcome(pack_id="p.1", runs=(), saves=Saves(count=2, seconds=0.25, size_bytes=10)))
    assert reader.saves(tables()) == Saves(count=2, seconds=0.25, size_bytes=10)
    put_outcome(store, PackOutcome(pack_id="p.2", runs=(), saves=Saves(count=1, seconds=0.5, size_bytes=5)))
    put_outcome(store, PackOutcome(pack_id="p.3", runs=(), saves=Saves(count=9)))
    assert reader.saves(tables()) == Saves(count=3, seconds=0.75, size_bytes=15)


def test_every_metric_that_the_board_asks_for_is_in_the_exposition() -> None:
    board = json.loads((INFRA / "grafana" / "seedbed.json").read_text(encoding="utf-8"))
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    asked += [variable["query"] for variable in board["templating"]["list"] if variable["type"] == "query"]
    named = {name for expression in asked for name in re.findall(r"seedbed_\w+", expression)}
    assert named <= set(METRICS)
    assert named >= set(METRICS), "a figure that nobody sees"
    for expression in asked:
        for name in re.findall(r"(?:rate|increase)\((\w+)", expression):
            assert METRICS[name][0] == "counter", f"{name} is no counter"
    places = [tuple(panel["gridPos"].values()) for panel in board["panels"]]
    assert len(set(places)) == len(places) >= 8


def test_the_endpoint_answers_this_machine_alone() -> None:
    with metrics_server(0, lambda: exposition({"w": tables()}, {})) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            host, port = server.server_address[:2]
            assert host == "127.0.0.1"
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
                assert b'seedbed_runs{study="w",status="finished"} 1' in answer.read()
            for path, name, code in (("/", "127.0.0.1", 404), ("/metrics", "evil.example", 421)):
                request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Host": f"{name}:{port}"})
                with pytest.raises(urllib.error.HTTPError) as caught:
                    urllib.request.urlopen(request)
                assert caught.value.code == code
                caught.value.close()
        finally:
            server.shutdown()
            thread.join()


def test_prometheus_scrapes_the_port_that_the_readme_serves() -> None:
    jobs = {job["job_name"]: job for job in load("prometheus/prometheus.yaml")["scrape_configs"]}
    port = re.search(r"seedbed metrics --store STORE --port (\d+)", (INFRA / "README.md").read_text(encoding="utf-8"))
    assert port is not None
    assert jobs["seedbed"]["static_configs"][0]["targets"] == [f"127.0.0.1:{port[1]}"]
