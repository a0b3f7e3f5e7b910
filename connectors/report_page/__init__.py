"""The parts of the backtest's page: its figures, and the template, style and scripts it shows."""
