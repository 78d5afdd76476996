"""`leibniz doctor`."""
