"""The program as a whole: its parser, and what it prints about itself."""
