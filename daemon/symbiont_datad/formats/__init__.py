"""What a file in the tree is, by its content."""
