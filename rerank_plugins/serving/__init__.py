"""The HTTP server, batches over files, and Ray. Each file needs packages of its own."""
