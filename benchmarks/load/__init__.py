"""Parts of `benchmarks/serving.py`: servers under load, as their users see them.

    client/       requests, connections, users, and what they saw
    models.py     what is served, how long prompts and answers are
    servers.py    the measured servers: started, watched, ended
    llamacpp.py   llama.cpp's server and its file of the same model
    cells.py      what is measured; bench.py: measures it in turns and keeps it
    driving.py    a server under the load of a turn; metrics.py: what it tells of itself
    rates.py      cells of answers by the second; overload.py: more than fits; soak.py: a long time of all
    bars.py       what is hoped for; report.py, pictures.py: tables and pictures

Facts of the machine, records on disk and child processes are those of `harness`.
"""
