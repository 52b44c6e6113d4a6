"""How the work is divided: plans, planners, and the lowering of a plan to a program of tasks."""
