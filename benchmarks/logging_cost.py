"""What the prediction log costs the service: the same model served with it and without, asked in turns.

    python -m benchmarks.logging_cost MODEL

MODEL is a folder as `matching-platform train` writes it. Both servers run all the time, and one is asked at a time: each
round asks one, then the other, in changing order, so that what else the machine does meets both. A request is a transfer
against 200 open invoices. The last line is the ratio of medians, and of throughputs, with the log to without.
"""

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Final

import httpx
import typer

from matching_platform.delivery.packing import build_bento
from matching_platform.delivery.probe import REQUEST
from matching_platform.delivery.serving.place import Release
from matching_platform.delivery.serving.rollout import Rollout
from matching_platform.delivery.serving.servers import BentoServers
from matching_platform.predictions.settings import PredictionSettings, passed_on

ROUNDS: Final = 20
REQUESTS: Final = 24
CLIENTS: Final = 4
INVOICES: Final = 200
VERSION: Final = "logged"
PORTS: Final = {"without": 3471, "with": 3472}


def question() -> dict[str, Any]:
    """A transfer, and open invoices that are alike but for what names them."""
    row = REQUEST["invoices"][0]
    invoices = [{**row, "invoice_id": f"i-{n}", "number": f"{row['number']}-{n}"} for n in range(INVOICES)]
    return {"transfers": REQUEST["transfers"][:1], "invoices": invoices}


def ask(url: str) -> float:
    """Seconds of one request."""
    began = time.perf_counter()
    httpx.post(f"{url}/match", json=question(), timeout=120, trust_env=False).raise_for_status()
    return time.perf_counter() - began


def asked(url: str) -> tuple[list[float], float]:
    """Seconds of each request of one client, and requests a second of several."""
    alone = [ask(url) for _ in range(REQUESTS)]
    began = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(ask, [url] * REQUESTS))
    return alone, REQUESTS / (time.perf_counter() - began)


def main(model: Path) -> None:
    with TemporaryDirectory() as work:
        bento = build_bento(model, VERSION, Path(work, "bento")).path
        variables = {"without": {}, "with": passed_on(PredictionSettings(), f"{work}/store")}
        places = {
            name: Rollout(name, Path(work, name), PORTS[name], BentoServers(variables[name])) for name in variables
        }
        try:
            urls = {name: place.deploy(Release(VERSION, bento)).url for name, place in places.items()}
            seconds: dict[str, list[float]] = {name: [] for name in urls}
            rates: dict[str, list[float]] = {name: [] for name in urls}
            for number in range(ROUNDS):
                for name in sorted(urls, reverse=bool(number % 2)):
                    alone, rate = asked(urls[name])
                    seconds[name] += alone
                    rates[name].append(rate)
        finally:
            for place in places.values():
                place.stop()
    for name in urls:
        typer.echo(f"{name}: median {median(seconds[name]) * 1000:.1f} ms, {median(rates[name]):.1f} requests/s")
    pairs = zip(rates["with"], rates["without"], strict=True)
    slower = median(seconds["with"]) / median(seconds["without"])
    typer.echo(f"ratio: latency {slower:.3f}, throughput {median(one / other for one, other in pairs):.3f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
