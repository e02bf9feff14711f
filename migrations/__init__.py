"""The schema's history: every step assumes that the old code is still running, and has a way back."""
