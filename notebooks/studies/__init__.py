"""Code that only the notebooks need: statistics, tables and figures of each study, and what they share."""
