"""A simulated company of any size, for the demo and the tests."""
