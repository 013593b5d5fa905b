"""Evaluation: tasks, samples, scorers, intervals, report. Torch-free; asks the same API as any user.

`evaluate(model, tasks, n)` runs held-out samples and, for every row with media, the controls that
show whether the model really sees and hears: blind, wrong medium, adapter off.
"""
