"""The commands for a library of videos: a module for each."""
