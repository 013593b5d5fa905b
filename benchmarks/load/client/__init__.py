"""The client's half of a load: requests, connections, users, and what they saw.

traces.py   when the pieces of one answer came; rates and percentiles of many
wire.py     HTTP/1.1 over one connection, so lean that a client costs a server's machine little
asking.py   requests, and reading the events of their answers
mix.py      requests of every kind
users.py    many users at a time: each asks again when answered, or requests come however it goes
echo.py     a server that computes nothing, for what the client itself costs
"""
