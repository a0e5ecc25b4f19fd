"""ZenML's side of `benchmarks.handover`, run by the Python of an environment that has ZenML and nothing of ours.

For each line of JSON on standard input, `{"source": file, "visualize": bool}`, it runs the pipeline once and answers with
a line on standard output: `seconds` of the run, seconds of `handing_over` among them, and `summary`, rows of text.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from functools import wraps
from typing import Any, Final

import pandas as pd
import pyarrow
import zenml
from zenml import pipeline, step
from zenml.integrations.pandas.materializers.pandas_materializer import PandasMaterializer

# What ZenML does to a frame between two steps.
HANDING_OVER: Final = ("save", "save_visualizations", "extract_metadata", "load")
SPENT: Final[list[float]] = []


@step
def received(source: str) -> pd.DataFrame:
    return pd.read_parquet(source)


@step
def located(transfers: pd.DataFrame) -> pd.DataFrame:
    return transfers.assign(country=transfers["counterparty_account"].str[:2])


@step
def counted(transfers: pd.DataFrame) -> pd.DataFrame:
    names = transfers["counterparty_name"]
    return transfers.assign(payments=names.groupby(names).transform("size"))


@step
def summed(transfers: pd.DataFrame) -> pd.DataFrame:
    by_kind = transfers.assign(repeated=transfers["payments"] > 1).groupby(["currency", "direction"], as_index=False)
    return by_kind.agg(
        transfers=("amount", "size"),
        amount=("amount", "sum"),
        countries=("country", "nunique"),
        repeated=("repeated", "sum"),
    )


@pipeline(enable_cache=False)
def handover(source: str) -> None:
    summed(counted(located(received(source))))


def answer(source: str, visualize: bool) -> dict[str, Any]:
    SPENT.clear()
    configured = handover if visualize else handover.with_options(enable_artifact_visualization=False)
    started = time.perf_counter()
    run = configured(source)
    seconds = time.perf_counter() - started
    handing_over = sum(SPENT)
    summary = text(run.steps["summed"].output.load())
    return {
        "seconds": seconds,
        "handing_over": handing_over,
        "summary": summary,
        "versions": f"ZenML {zenml.__version__}, pandas {pd.__version__}, pyarrow {pyarrow.__version__}",
    }


def text(summary: pd.DataFrame) -> list[list[str]]:
    return sorted(summary.astype(str).values.tolist())


def clocked(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        try:
            return method(*args, **kwargs)
        finally:
            SPENT.append(time.perf_counter() - started)

    return call


def main() -> None:
    # What ZenML prints goes to standard error, and cannot be taken for an answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for name in HANDING_OVER:
        setattr(PandasMaterializer, name, clocked(getattr(PandasMaterializer, name)))
    for line in sys.stdin:
        answers.write(json.dumps(answer(**json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
