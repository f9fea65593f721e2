"""The status page: one self-contained document, made on the server."""
