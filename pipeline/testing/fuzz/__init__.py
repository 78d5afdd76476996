"""Any conversation is safe: generated ones, and what must hold in each."""
