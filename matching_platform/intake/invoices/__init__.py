"""Invoices as documents: UBL, CII in all its names, PDF files that carry one, and archives of these."""
