"""The WebSocket transport: dial, proxy, TLS, upgrade, receiving and sending of messages."""
