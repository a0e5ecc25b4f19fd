"""Changed training code asks for one new model, that of the newest month; it then goes through the gate like any other."""

from datetime import datetime

import dagster as dg
import pytest

from matching_platform.defs.automation import NEWEST_MODEL

MONTHS = dg.MonthlyPartitionsDefinition("2024-01", end_date="2024-04", fmt="%Y-%m")
NOW = datetime(2024, 5, 2)

# Dagster evaluates conditions with a parameter of its own that it calls beta.
pytestmark = pytest.mark.filterwarnings("ignore:Parameter `include_sources`")


def definitions(code: str, condition: dg.AutomationCondition = NEWEST_MODEL) -> dg.Definitions:
    """A train set, a model of some code, and what is evaluated of it."""

    @dg.asset(partitions_def=MONTHS)
    def train_set() -> None: ...

    @dg.asset(partitions_def=MONTHS, deps=[train_set], code_version=code, automation_condition=condition)
    def model() -> None: ...

    @dg.asset(partitions_def=MONTHS, deps=[model], automation_condition=dg.AutomationCondition.eager())
    def evaluation_report() -> None: ...

    return dg.Definitions([train_set, model, evaluation_report])


def asked(result: dg.EvaluateAutomationConditionsResult, asset: str) -> set[str]:
    return set(result.get_requested_partitions(dg.AssetKey(asset)))


@pytest.fixture
def made() -> dg.DagsterInstance:
    """All months were made with the code that there was."""
    instance = dg.DagsterInstance.ephemeral()
    for month in MONTHS.get_partition_keys():
        for asset in ("train_set", "model", "evaluation_report"):
            instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition=month))
    return instance


def evaluate(
    instance: dg.DagsterInstance, defs: dg.Definitions, before: dg.EvaluateAutomationConditionsResult | None = None
) -> dg.EvaluateAutomationConditionsResult:
    return dg.evaluate_automation_conditions(
        defs, instance=instance, cursor=before.cursor if before else None, evaluation_time=NOW
    )


def test_changed_code_trains_the_newest_month_once(made: dg.DagsterInstance) -> None:
    before = evaluate(made, definitions("1"))
    assert before.total_requested == 0
    changed = evaluate(made, definitions("2"), before)
    assert asked(changed, "model") == asked(changed, "evaluation_report") == {"2024-03"}
    for asset in ("model", "evaluation_report"):
        made.report_runless_asset_event(dg.AssetMaterialization(asset, partition="2024-03"))
    after = evaluate(made, definitions("2"), changed)
    assert after.total_requested == 0
    assert evaluate(made, definitions("2"), after).total_requested == 0


def test_a_restart_with_the_same_code_trains_nothing(made: dg.DagsterInstance) -> None:
    before = evaluate(made, definitions("2"))
    assert evaluate(made, definitions("2"), before).total_requested == 0


def test_changed_rows_still_train_the_newest_month(made: dg.DagsterInstance) -> None:
    before = evaluate(made, definitions("1"))
    made.report_runless_asset_event(dg.AssetMaterialization("train_set", partition="2024-03"))
    made.report_runless_asset_event(dg.AssetMaterialization("train_set", partition="2024-01"))
    assert asked(evaluate(made, definitions("1"), before), "model") == {"2024-03"}


def test_eager_alone_would_not_notice(made: dg.DagsterInstance) -> None:
    eager = dg.AutomationCondition.eager()
    before = evaluate(made, definitions("1", eager))
    assert evaluate(made, definitions("2", eager), before).total_requested == 0
