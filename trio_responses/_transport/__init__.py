"""One WebSocket: dial, proxy, TLS, upgrade, batches of messages in, whole frames out."""
