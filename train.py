"""Training entry point: `python train.py [group=option] [key=value]`; `--help` shows the config."""

from vesuvius.train import main

if __name__ == "__main__":
    main()
