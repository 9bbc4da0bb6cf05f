"""Command lines; the scripts in run/ and the console commands call the `main` of these modules."""
