"""The platform as Dagster sees it: assets, checks, sensors, schedules and jobs, by meaning."""

import warnings

import dagster as dg

# Backfill policies are in beta since 2023, and the platform rests on them.
warnings.filterwarnings("ignore", category=dg.BetaWarning, message="Parameter `backfill_policy`")
# A job over assets of both policies takes the narrower one, month by month, which is what is wanted.
warnings.filterwarnings("ignore", message="Asset job .* materializes assets with varying BackfillPolicies")
