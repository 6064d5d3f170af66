"""What only notebooks need: their statistics, tables and figures, and what the notebooks share."""
