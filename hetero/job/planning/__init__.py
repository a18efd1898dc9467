"""From a job to its plan: what is measured, what is assumed, what came of it."""
