"""A script of one's own that a study trains: least squares by stochastic gradient descent, in numpy."""

import numpy as np

import seedbed

run = seedbed.given()
fixed = np.random.default_rng(run.seeds.evaluation)
x, true = fixed.normal(size=(64, 4)), np.arange(4.0)
y = x @ true

w = np.random.default_rng(run.seeds.init).normal(size=4)
if run.resume_folder:
    w = np.load(run.resume_folder / "w.npy")
else:
    seedbed.prove(init=w, evaluation=x)

for step in range(run.resume_step, run.steps + 1):
    if step > run.resume_step:
        rows = np.random.default_rng([run.seeds.data, step]).integers(0, 64, run.training["batch_size"])
        error = x[rows] @ w - y[rows]
        w = w - run.optimizer["learning_rate"] * 2 * x[rows].T @ error / len(rows)
    elif run.resume_folder:
        continue  # what was measured here was reported before this checkpoint
    if run.probes_at(step):
        right = int((np.abs(w - true) < 0.1).sum())
        seedbed.log(step, {"train.loss": float(np.mean((x @ w - y) ** 2)), "heldout.accuracy": (right, 4)})
    last = seedbed.stopping()
    if run.saves_at(step) or last:
        np.save(seedbed.checkpoint_folder(step) / "w.npy", w)
        seedbed.checkpoint(step)
    if last:
        break
