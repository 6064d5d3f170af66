"""Running many notebooks: which, side by side or on a cluster, and with which parameters."""
