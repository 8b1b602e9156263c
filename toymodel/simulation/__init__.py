"""From a start to what a run leaves behind: problems, interventions, integrators, observers."""
