"""What was asked of the service and what it answered, kept: the log that it writes, and how it is read."""
