"""One socket after the other: the receive task, the supervisor, the way down to the socket.

What belongs elsewhere: one WebSocket (`transport/`), what its users have in hand (`turns/`).
"""
