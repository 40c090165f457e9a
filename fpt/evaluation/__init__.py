"""Scores of a split (`predict`, `run`) and predictions for a user's own inputs (`files`, `predictor`)."""
