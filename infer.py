"""Inference entry point: `python infer.py run_dir=<run> volume=<file or folder>`."""

from vesuvius.infer import main

if __name__ == "__main__":
    main()
