"""Parts of `benchmarks/device.py`: what is measured, by whom, how it is run in turns, kept and shown.

    scale.py       sizes: the released model, or one of seconds
    programs.py    who is measured; environments.py: where each is installed
    cells.py       what is measured, a file of results each; bars.py: what is hoped for
    artefacts.py   files that have to be made first; workbench.py: makes them, within a limit of disk
    processes.py   children: memory, logs, ending them; workers.py: one that answers; crew.py: those in memory
    measuring.py   samples in turns, with the machine's bandwidth between them
    records.py     results on disk; report.py: table and picture; machine.py: facts

Nothing here imports torch, and no peer is imported at all: each runs as `python -m peers.serving`.
"""
