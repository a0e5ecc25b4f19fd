"""From tags to a model: labelled pairs, the frozen test, training, the yardstick and the report."""
