"""What is said of results: sentences, the same for the terminal and the page."""
