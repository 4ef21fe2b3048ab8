"""What a training's log says: event files, trends, verdicts, plots. Reads files only; needs no model."""
