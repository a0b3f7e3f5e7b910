"""Other ways to read a click topic: one program each, told broker, topic, events, seconds."""
