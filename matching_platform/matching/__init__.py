"""Transfers and open invoices in, proposals out: no orchestrator, no cloud, no report."""
