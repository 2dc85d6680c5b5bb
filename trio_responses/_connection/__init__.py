"""The engine of a connection: sockets that are replaced automatically, and the requests on them."""
