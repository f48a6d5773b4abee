"""The cells of the results table as jobs, trained as concurrent processes."""
