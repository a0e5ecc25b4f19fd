"""Says which invoices each bank transfer pays, at a promised precision."""
