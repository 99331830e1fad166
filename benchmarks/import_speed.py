"""Seconds that `mixlaw import` takes for 3,000 runs x 100 tasks, as CSV, Parquet and NDJSON, and once more."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from mixlaw import import_runs

RUNS, TASKS, DOMAINS = 3000, 100, 12


def table() -> pl.DataFrame:
    """Runs of three sizes on random mixtures, with losses that follow the mixture, seeded."""
    rng = np.random.default_rng(0)
    shares, worth = rng.dirichlet(np.full(DOMAINS, 0.5), RUNS), rng.dirichlet(np.ones(DOMAINS), TASKS)
    loss = 3 * (shares @ worth.T + 0.05) ** -0.2 * np.exp(0.01 * rng.normal(size=(RUNS, TASKS)))
    columns = {f"tokens:init:d{k}": shares[:, k] * 1e9 for k in range(DOMAINS)}
    columns |= {f"metric:task{t}": loss[:, t] for t in range(TASKS)}
    sizes = rng.choice([1e6, 1e7, 1e8], RUNS)
    return pl.DataFrame({"run": [f"run{i}" for i in range(RUNS)], "params": sizes} | columns)


def main() -> None:
    """Import each format into a new study, then into the same."""
    frame = table()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        frame.write_csv(folder / "runs.csv")
        frame.write_parquet(folder / "runs.parquet")
        frame.write_ndjson(folder / "runs.ndjson")
        print(f"{RUNS:,} runs x {TASKS} tasks{'':6}{'wall s':>8}{'processor s':>13}")
        for file in ("runs.csv", "runs.parquet", "runs.ndjson", "runs.ndjson"):
            study = folder / f"study-{file}"
            again = " again" if study.exists() else ""
            began, busy = time.perf_counter(), time.process_time()
            import_runs(study, folder / file, unit="bits/byte")
            seconds, cpu = time.perf_counter() - began, time.process_time() - busy
            print(f"{file + again:26}{seconds:8.1f}{cpu:13.1f}", flush=True)


if __name__ == "__main__":
    main()
