"""What can be wrong with the inputs of a build."""
