"""The transports, WebSocket and HTTP: dial, proxy, TLS, and messages in both directions."""
