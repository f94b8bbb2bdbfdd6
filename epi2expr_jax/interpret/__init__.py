"""What predictions rest on, and whether predicted effects are real."""
