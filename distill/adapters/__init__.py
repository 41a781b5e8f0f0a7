"""One package per training framework: nothing outside it knows that framework."""
