"""The verifier: kills, stops, freezes and wipes at random, and then counts what should be there."""
