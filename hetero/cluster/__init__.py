"""Ray, the controller and the agents: who runs where."""
