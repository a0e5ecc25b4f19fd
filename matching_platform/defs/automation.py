"""When assets are made: conditions, jobs and the monthly schedule."""

from typing import Final

import dagster as dg

Condition = dg.AutomationCondition

# Every month that came or changed, however old. `eager` alone looks at the newest window only.
EVERY_MONTH: Final = Condition.eager().without(Condition.in_latest_time_window())
# The newest month only: a late correction must not train every later model again. See `late_labels`.
NEWEST_MONTH: Final = Condition.eager()
# The newest model also where the code that trains is another: it then goes through the gate like any other.
NEWEST_MODEL: Final = NEWEST_MONTH.replace(
    Condition.newly_missing(), Condition.newly_missing() | Condition.code_version_changed()
)
WHEN_UPSTREAM_CHANGES: Final = Condition.eager()
# An evaluation asks for promotion once; all blocking checks of what it rests on must have passed.
WHEN_EVALUATED: Final = (
    Condition.any_deps_updated().since_last_handled()
    & Condition.all_deps_blocking_checks_passed()
    & ~Condition.any_deps_in_progress()
    & ~Condition.in_progress()
)


def every_month_ignoring(*assets: str) -> dg.AutomationCondition:
    """`EVERY_MONTH`, but for changes of `assets`, which concern later months only."""
    return EVERY_MONTH.replace(
        Condition.any_deps_updated(), Condition.any_deps_updated().ignore(dg.AssetSelection.assets(*assets))
    )


def every_month_without(*assets: str) -> dg.AutomationCondition:
    """`EVERY_MONTH`, also where `assets` have nothing of the month."""
    those = dg.AssetSelection.assets(*assets)
    return EVERY_MONTH.replace(Condition.any_deps_missing(), Condition.any_deps_missing().ignore(those))


def every_month_with_any(*assets: str) -> dg.AutomationCondition:
    """`EVERY_MONTH` in which one of `assets` at least has something."""
    some = Condition.any_deps_match(~Condition.missing()).allow(dg.AssetSelection.assets(*assets))
    return every_month_without(*assets) & some


MADE: Final = dg.AssetSelection.all() - dg.AssetSelection.groups("raw")
LEARNING: Final = dg.AssetSelection.assets("train_set", "model", "evaluation_report")

month_job = dg.define_asset_job(
    "month",
    selection=MADE,
    description="One month from its raw tables to proposals: read, label, learn, evaluate, promote, roll out, propose.",
)
learn_job = dg.define_asset_job(
    "learn",
    selection=LEARNING,
    description="Trains and evaluates on all labelled months, without reading the warehouse.",
)
search_job = dg.define_asset_job(
    "search",
    selection=dg.AssetSelection.assets("model", "evaluation_report"),
    config={"ops": {"model": {"config": {"search": True}}}},
    description="Searches training settings for the month's train set, once, then trains and evaluates with the best.",
)
full_rebuild_job = dg.define_asset_job(
    "full_rebuild",
    selection=MADE,
    description="Everything again from the raw tables, for all months of a backfill. What did not change is recognised "
    "by its hash: no frozen test is redrawn, and no model is trained twice.",
    tags={"rebuild": "full"},
)

# Most tags of a month are set by the tenth of the next.
monthly_schedule = dg.build_schedule_from_partitioned_job(
    month_job, name="monthly", day_of_month=10, hour_of_day=5, minute_of_hour=0
)

automation_sensor = dg.AutomationConditionSensorDefinition(
    "automation",
    target=dg.AssetSelection.all(),
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=30,
)

defs = dg.Definitions(
    jobs=[month_job, learn_job, search_job, full_rebuild_job],
    schedules=[monthly_schedule],
    sensors=[automation_sensor],
)
