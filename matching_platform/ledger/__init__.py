"""Rows and tables: what an invoice, a transfer and a match are, and how they are read and checked."""
