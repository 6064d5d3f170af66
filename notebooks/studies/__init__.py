"""What only one notebook needs: its statistics, its figure."""
