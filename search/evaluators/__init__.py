"""Evaluators: what tells the accuracy of an architecture, as a share of 1.

An evaluator is anything that is called with an `Architecture` and returns that number: `evaluate`
asks one and checks the answer. `StandAlone` trains each network on its own, `AccuracyTable` looks
it up, `search.recalibration.SupernetEvaluator` uses shared weights, and a function of one's own
does what it likes.
"""
