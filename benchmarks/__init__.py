"""What measures the platform: figures, and companies it has never seen."""
