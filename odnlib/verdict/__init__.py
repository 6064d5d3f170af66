"""What the paper prints and claims, beside what was measured."""
