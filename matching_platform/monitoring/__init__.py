"""Whether the world moved, whether what was booked held, and who is told."""
