"""Programs to read and to begin with; README.md has one line about each."""
