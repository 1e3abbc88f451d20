"""Image folders: which splits and classes they hold."""
