"""The card of an exported run: what it is, how it was trained, which bytes, and what its study shows."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs.errors import QueryError
from orchestrator.declared import Declared, DeclaredRun
from orchestrator.export.hub import Exported
from orchestrator.text import number

_SIGN = "<!-- written by seedbed export hf -->"


def card_text(
    declared: Declared,
    run: DeclaredRun,
    name: str,
    spec: Mapping[str, Any],
    steps: Sequence[Exported],
    estimates: pa.Table,
) -> str:
    """Return the card as Markdown with the front matter that the hub reads; spec: the resolved one of the run."""
    seeds = ", ".join(f"{factor} {value}" for factor, value in run.seeds.as_dict().items())
    last = steps[-1]
    auto = "AutoModelForMaskedLM" if spec["condition"]["model"].get("attention") == "full" else "AutoModelForCausalLM"
    revisions = "\n".join(f"| `step{one.step}` | `{one.sha256}` | {one.largest:.1e} |" for one in steps)
    return f"""---
library_name: transformers
tags: [seedbed]
---
{_SIGN}

# {name}

One of {len(declared.runs)} runs of the study `{declared.name}`. {declared.question}

| | |
| --- | --- |
| run | `{run.id}` |
| condition | {run.condition.label} |
| seeds | {seeds} |
| steps | {run.condition.planned_steps:,} |

```python
from transformers import {auto}, AutoTokenizer

model = {auto}.from_pretrained("{name}/step{last.step}")
tokenizer = AutoTokenizer.from_pretrained("{name}/step{last.step}")
```

## Revisions

Each was loaded again by `transformers` when it was written, and its logits compared with those of the run's own model.
The digest is that of the run's whole state, as the manifest of its checkpoint has it: weights and optimiser.

| revision | SHA-256 of the state | largest difference of a logit |
| --- | --- | --- |
{revisions}

## What the study shows

{_estimates(estimates, run)}

## Spec

```json
{json.dumps(spec, indent=2, ensure_ascii=False)}
```
"""


def _estimates(estimates: pa.Table, run: DeclaredRun) -> str:
    mine = estimates.filter(pc.is_in(estimates["condition_id"], pa.array([run.condition.id, ""])))
    rows = [row for row in mine.to_pylist() if row["value"] is not None]
    if not rows:
        return "No estimate has an answer yet."
    lines = ["| question | of | value | interval | method | runs |", "| --- | --- | --- | --- | --- | --- |"]
    for row in rows:
        of = ", ".join(part for part in (row["condition"] or "the study", row["name"]) if part)
        low, high = ("–" if row[end] is None else number(row[end]) for end in ("low", "high"))
        told = f"[{low}, {high}] at {row['level']:.0%}"
        lines.append(
            f"| {row['question']} | {of} | {number(row['value'])} | {told} | {row['method']} | {row['finished']} |"
        )
    return "\n".join(lines)


def write_card(text: str, folder: Path) -> None:
    """Write the card of a run; raises QueryError where a README.md is there that is no card of ours."""
    path = folder / "README.md"
    if path.exists() and _SIGN not in path.read_text(encoding="utf-8"):
        raise QueryError(f"{path} is no card that seedbed wrote: move it away, or give another folder")
    staged = folder / ".README.md"
    staged.write_text(text, encoding="utf-8")
    staged.replace(path)
