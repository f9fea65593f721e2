"""What goes, and why: pure decisions, made before anything is touched."""
