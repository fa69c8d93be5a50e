"""The commands of `python -m pycoronet`."""
