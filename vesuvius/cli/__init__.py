"""Console script `vesuvius`: one file per subcommand, heavy imports inside `run`."""
