"""Budgets solved exactly: how many channels each coupled group keeps, for the most importance within a cost."""
