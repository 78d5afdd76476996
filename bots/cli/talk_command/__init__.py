"""`leibniz talk`."""
