"""The parts of the engine that trains a whole population as one program."""
