"""The paper's tables and figures from a grid of runs: what is run, how, and what is made of the results."""
