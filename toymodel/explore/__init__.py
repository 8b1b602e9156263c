"""The explorer: one page for the browser, whose mathematics is JavaScript that is printed from the model."""
