"""One self-contained HTML page of runs. No matplotlib, and no torch unless images are shown."""
