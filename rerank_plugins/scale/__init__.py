"""Beyond one process: the reranker of a spec behind HTTP, and over files and Ray. Each file needs packages of its own."""
