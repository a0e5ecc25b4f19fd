"""Says which invoices each bank transfer pays, at a promised precision."""

import os

# Before torch is first imported: threads that wait by spinning made matching five times slower on shared cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
