"""The programs that are measured, ours and each peer, and what makes their files; each has its environment.

`python -P -m peers.serving NAME`, with this folder's parent on PYTHONPATH, answers requests (`serving.py`).
Only `ours.py` and `write_media.py` import phi4, and the driver imports no module of these.
"""
