"""The pages: each asks for what is wanted and lays out what the plain functions return."""
