"""The HTTP server, batch jobs over files, and Ray. The server and Ray need optional packages."""
