"""What a model must beat: the rules of accounting software, and boosted trees over the model's own candidates."""
