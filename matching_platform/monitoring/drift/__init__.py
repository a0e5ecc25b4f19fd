"""Did the world move: a month's invoices, transfers, candidates and confidences beside those of the train set."""
