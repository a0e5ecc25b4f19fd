"""The ways by which a company's own data comes in: bank statements and invoices."""
