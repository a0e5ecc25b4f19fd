"""Settings of the test session that must precede every import."""

import os

# Tests run side by side; without this each process takes every core for its small networks.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "yes")

pytest_plugins = ["matching_platform_tests.containers.fixtures"]
