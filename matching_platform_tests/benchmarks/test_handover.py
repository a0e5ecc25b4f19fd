"""What of the comparison with ZenML can be tested without ZenML."""

import json
import runpy
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from benchmarks import handover
from benchmarks.handover import HandoverError, Run
from matching_platform.ledger.validation import validate

ROWS = 2_000
RUN = Run(1.5, 1.0, [["EUR", "in", "1", "2.00", "1", "0"]], "Ours 1")
ECHO = "import sys\nfor line in sys.stdin:\n    print({answer!r}, flush=True)\n"
DEAD = "import sys; sys.exit('zenml.exceptions.StackError: no stack')"


def quiet(what: str) -> None:
    assert what


@pytest.fixture(scope="module")
def table() -> pl.DataFrame:
    return handover.transfers(ROWS, seed=3)


def test_what_is_handed_over_is_a_table_of_the_contract(table: pl.DataFrame) -> None:
    assert validate("transfers", table).height == table.height == ROWS
    assert_frame_equal(table, handover.transfers(ROWS, seed=3))
    assert not table.equals(handover.transfers(ROWS, seed=4))


@pytest.fixture(scope="module")
def source(table: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("handover") / "transfers.parquet"
    table.write_parquet(path)
    return path


@pytest.fixture(scope="module")
def sums(table: pl.DataFrame) -> list[list[str]]:
    """What both sides are to come to."""
    busy = table.group_by("counterparty_name").len().filter(pl.col("len") > 1)
    return sorted(
        [
            currency,
            direction,
            str(rows.height),
            str(rows["amount"].sum()),
            str(rows["counterparty_account"].drop_nulls().str.head(2).n_unique()),
            str(rows.join(busy, on="counterparty_name", how="semi").height),
        ]
        for (currency, direction), rows in table.group_by("currency", "direction")
    )


def test_the_steps_here_come_to_the_sums_of_the_table(source: Path, sums: list[list[str]]) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        run = handover.here(source, instance)
        made = instance.get_latest_materialization_event(dg.AssetKey("counted"))
    assert made and made.asset_materialization
    assert made.asset_materialization.metadata["rows"].value == ROWS
    assert 0 < run.handing_over < run.seconds
    assert run.summary == sums


def test_the_steps_for_zenml_come_to_the_same_sums(
    source: Path, sums: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    materializers = "zenml.integrations.pandas.materializers.pandas_materializer"
    bare = {"step": lambda step: step, "pipeline": lambda **_: lambda pipeline: pipeline}
    monkeypatch.setitem(sys.modules, "zenml", SimpleNamespace(**bare))
    monkeypatch.setitem(sys.modules, materializers, SimpleNamespace(PandasMaterializer=object))
    theirs = SimpleNamespace(**runpy.run_path(handover.__file__.replace(".py", "_zenml.py")))
    table = theirs.summed(theirs.counted(theirs.located(theirs.received(str(source)))))
    assert theirs.text(table) == sums


def test_the_ratio_of_the_best_runs_is_the_last_line(tmp_path: Path) -> None:
    seconds = {"ours": iter([9.0, 3.0, 2.0, 4.0]), "theirs": iter([1.0, 25.0, 26.0, 24.6])}

    def side(name: str) -> handover.Side:
        return lambda source: replace(RUN, seconds=next(seconds[name]))

    told: list[str] = []
    best = handover.compare({name: side(name) for name in seconds}, tmp_path / "all", tmp_path / "few", told.append)
    lines = handover.report(best, "ours", "theirs")
    assert lines[-1] == "12.3 x"
    assert [line.split()[:3] for line in lines[1:-1]] == [["ours", "2.00", "s"], ["theirs", "24.60", "s"]]
    assert told[:3] == ["warm-up: ours, 9.00 s", "warm-up: theirs, 1.00 s", "round 1 of 3: ours, 3.00 s"]


def test_sides_that_come_to_different_sums_are_not_compared(tmp_path: Path) -> None:
    sides = {"ours": lambda source: RUN, "theirs": lambda source: replace(RUN, summary=[])}
    with pytest.raises(HandoverError, match="different sums"):
        handover.compare(sides, tmp_path, tmp_path, quiet)


def test_the_other_side_answers_line_by_line(tmp_path: Path) -> None:
    script = ECHO.format(answer=json.dumps(vars(RUN)))
    with handover.worker([sys.executable, "-c", script], tmp_path / "zenml") as ask:
        assert ask(source="a", visualize=True) == ask(source="b", visualize=False) == RUN


def test_a_side_that_ends_says_what_it_said_last(tmp_path: Path) -> None:
    with (
        pytest.raises(HandoverError, match=r"has ended: zenml\.exceptions\.StackError: no stack"),
        handover.worker([sys.executable, "-c", DEAD], tmp_path / "zenml") as ask,
    ):
        ask(source="a", visualize=True)


def test_zenml_sees_no_setting_but_those_made_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZENML_STORE_URL", "https://zenml.example.com")
    script = (
        "import json, os\ninput()\n"
        "seen = sorted([name, value] for name, value in os.environ.items() if name.startswith('ZENML_'))\n"
        f"print(json.dumps({vars(RUN)!r} | {{'summary': seen}}))"
    )
    with handover.worker([sys.executable, "-c", script], tmp_path / "zenml") as ask:
        seen = dict(ask(source="a", visualize=True).summary)
    assert seen == {
        "ZENML_ANALYTICS_OPT_IN": "false",
        "ZENML_CONFIG_PATH": str(tmp_path / "zenml"),
        "ZENML_LOGGING_VERBOSITY": "WARN",
    }


def installer(calls: list[list[str]], fails: str = "") -> Callable[..., SimpleNamespace]:
    """Stands for `subprocess.run`: makes the environment's Python, and fails at the command with `fails` in it."""

    def run(command: list[str], **_: object) -> SimpleNamespace:
        calls.append(command)
        if "venv" in command:
            Path(command[-1], "bin").mkdir(parents=True)
            Path(command[-1], "bin", "python").touch()
        return SimpleNamespace(returncode=int(fails in command), stdout="Collecting zenml\nERROR: no such package\n")

    return run


def test_the_environment_is_made_once_and_again_where_it_was_not_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[str]] = []
    monkeypatch.setattr(subprocess, "run", installer(calls, fails="pip"))
    with pytest.raises(HandoverError, match="no environment for ZenML, as -m pip install failed: ERROR: no such pack"):
        handover.environment(tmp_path / "zenml", quiet)
    monkeypatch.setattr(subprocess, "run", installer(calls))
    made = handover.environment(tmp_path / "zenml", quiet)
    assert made == handover.environment(tmp_path / "zenml", quiet) == tmp_path / "zenml" / "bin" / "python"
    assert [command[2] for command in calls] == ["venv", "pip", "venv", "pip"]


def test_without_zenml_there_is_one_line_and_an_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(handover, "HOME", tmp_path / "benchmark")
    monkeypatch.setattr(subprocess, "run", installer([], fails="pip"))
    with pytest.raises(SystemExit) as ended:
        handover.main()
    assert ended.value.code == 1
    said = capsys.readouterr()
    assert said.out == "" and said.err.splitlines()[-1].startswith("error: there is no environment for ZenML")
