"""Analyse a training's log: event files, trends, go or no-go, plots. Reads files only; needs no model."""
