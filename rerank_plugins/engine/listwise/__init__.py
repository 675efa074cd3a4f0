"""Models that read all documents at once."""
