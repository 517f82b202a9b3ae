"""The program as a whole: its parser, what it prints about itself, and parts of commands."""
