"""From a grid of runs to the tables, figures and claims of the paper. Imports no framework."""
