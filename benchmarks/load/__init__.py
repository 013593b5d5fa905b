"""Parts of `benchmarks/serving.py`: servers under load, as their users see them.

    traces.py      when the pieces of one answer came; rates and percentiles of many
    wire.py        HTTP/1.1 over one connection, so lean that a client costs a server's machine little
    asking.py      requests, and reading the events of their answers
    users.py       many users at a time: each asks again when answered, or requests come however it goes
    servers.py     the measured servers: started, watched, ended
    models.py      what is served, how long prompts and answers are
    llamacpp.py    llama.cpp's server and its file of the same model
    echo.py        a server that computes nothing, for what the client itself costs
    cells.py       what is measured; bench.py: measures it in turns and keeps it
    rates.py       cells of answers; overload.py: more than fits; soak.py: a long time of everything
    bars.py        what is hoped for; report.py, pictures.py: tables and pictures

Facts of the machine, records on disk and child processes are those of `harness`.
"""
