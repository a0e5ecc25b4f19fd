"""What people decide about transfers: the queue, decisions, balances, bookings. No web, no orchestrator."""
