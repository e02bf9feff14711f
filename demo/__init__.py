"""`python -m demo`: a real or generated order trace replayed through the whole system."""
