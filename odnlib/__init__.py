"""Optimally Deep Networks: find the depth a dataset needs, cut the rest off."""
