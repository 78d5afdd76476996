"""`leibniz record`, `show`, `replay` and `compare`."""
